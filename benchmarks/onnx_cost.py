"""Speed of the exported ONNX models against PyTorch.

    python benchmarks/onnx_cost.py [--rounds 30]

Exports the shipped checkpoint and runs PyTorch (eager) and onnxruntime in turn on the same inputs,
on one thread. Writes medians and ratios to `benchmarks/results/onnx_cost.json`.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from machine import machine

from mma_mrnnet.files import write_json
from mma_mrnnet.hub.checkpoints import load_pretrained, pretrained_folder
from mma_mrnnet.hub.onnx import export_onnx
from mma_mrnnet.metrics import rounded

RESULT = Path(__file__).parent / "results" / "onnx_cost.json"


def in_turn(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return median CPU seconds of each call, made in turn after a tenth of warm-up."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + max(rounds // 10, 2)):
        for name, call in calls.items():
            started = time.process_time()
            call()
            spent[name].append(time.process_time() - started)
        if number + 1 == max(rounds // 10, 2):
            spent = {name: [] for name in calls}
    medians = {f"{name}_cpu_s": statistics.median(times) for name, times in spent.items()}
    ratios = [one / two for one, two in zip(spent["torch"], spent["onnxruntime"], strict=True)]
    return {**medians, "torch_over_onnxruntime": statistics.median(ratios), "rounds": rounds}


def open_model(path: Path) -> onnxruntime.InferenceSession:
    """Open a session on one thread, without spinning workers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def calls_of(
    network: Callable, inputs: dict[str, torch.Tensor], path: Path
) -> dict[str, Callable[[], object]]:
    """Time PyTorch and onnxruntime on the same inputs."""
    session, arrays = open_model(path), {name: value.numpy() for name, value in inputs.items()}

    def by_torch() -> object:
        with torch.inference_mode():
            return network(**inputs)

    return {"torch": by_torch, "onnxruntime": lambda: session.run(None, arrays)}


def main() -> None:
    """Export, measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, _ = load_pretrained()
    side, most = model.config.mma_config.image_size, model.config.num_frames
    result = {
        "what": "the shipped checkpoint in float32 on one thread, "
        "PyTorch eager and onnxruntime in turn",
        "command": f"python benchmarks/onnx_cost.py --rounds {args.rounds}",
        "machine": machine(),
        "torch": torch.__version__.split("+")[0],
        "onnxruntime": onnxruntime.__version__,
    }
    with tempfile.TemporaryDirectory() as place:
        folder = export_onnx(pretrained_folder(), Path(place) / "onnx")
        result["megabytes"] = {
            path.name: path.stat().st_size / 1e6 for path in sorted(folder.glob("*.onnx"))
        }
        for size in (1, 32):
            inputs = {"crops": torch.randint(256, (size, side, side, 3), dtype=torch.uint8)}
            calls = calls_of(
                lambda crops: model.mma(crops.permute(0, 3, 1, 2) / 127.5 - 1).affect,
                inputs,
                folder / "extractor.onnx",
            )
            result[f"extractor, batch {size}"] = in_turn(calls, args.rounds)
        clip = {
            "affect": torch.rand(1, most, 26),
            "frame_mask": torch.ones(1, most, dtype=torch.bool),
        }
        result["intensities, batch 1"] = in_turn(
            calls_of(model, clip, folder / "intensities.onnx"), args.rounds
        )
    write_json(RESULT, rounded(result))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
