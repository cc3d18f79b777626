"""The Hub: checkpoints as folders, export, cards, push, ONNX."""
