"""The Hub: load, export and push checkpoints, model cards, ONNX."""
