"""Images a second of stage 1's training, against the bare network on random tensors.

    python benchmarks/stage1_training.py [--steps 6]

The loop reads drawn PNG faces and does everything that training does. The bare network runs forward
and backward on random tensors of the same size. Both run in turn on one compute thread, with data
read by the training process and by a worker. Writes `benchmarks/results/stage1_training.json`.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import machine

from mma_mrnnet.files import write_json
from mma_mrnnet.metrics import rounded
from mma_mrnnet.training.arguments import parse_arguments
from mma_mrnnet.training.loop import Run
from mma_mrnnet.training.stages import mma_stage

RESULT = Path(__file__).parent / "results" / "stage1_training.json"
NETWORKS = {
    "ResNet-50 (the default)": ["--batch_size", "32"],
    "half-width ResNet-18 (the first checkpoint's)": [
        *("--batch_size", "64", "--layer_type", "basic", "--embedding_size", "32"),
        *("--hidden_sizes", "32", "64", "128", "256", "--depths", "2", "2", "2", "2"),
    ],
}


def bare_step(run: Run, batch_size: int) -> Callable[[], None]:
    """Run the network forward and backward on one batch of random pixels."""
    pixels = torch.rand(batch_size, 3, 112, 112).to(memory_format=torch.channels_last)

    def step() -> None:
        output = run.model(pixels)
        (
            output.valence_arousal.sum()
            + output.expression_logits.sum()
            + output.action_unit_logits.sum()
        ).backward()
        run.optimizer.zero_grad()

    return step


def compare(words: list[str], workers: int, steps: int) -> dict[str, float]:
    """Return median images a second of both, in turn, and the share of the loop."""
    with tempfile.TemporaryDirectory() as folder:
        args = parse_arguments(
            [
                "--stage",
                "mma",
                "--data",
                "drawn",
                "--output",
                folder,
                "--workers",
                str(workers),
                *words,
            ]
        )
        args.items = (steps + 2) * args.batch_size
        torch.set_num_threads(1)
        run = Run(mma_stage(args), args)
        run.model.train()
        bare = bare_step(run, args.batch_size)
        batches = iter(run.train)
        spent: dict[str, list[float]] = {"bare": [], "loop": []}
        for _ in range(steps + 1):
            started = time.perf_counter()
            bare()
            spent["bare"].append(time.perf_counter() - started)
            started = time.perf_counter()
            run.update(next(batches))
            spent["loop"].append(time.perf_counter() - started)
    rates = {
        name: args.batch_size / statistics.median(seconds[1:]) for name, seconds in spent.items()
    }
    shares = [one / other for one, other in zip(spent["bare"][1:], spent["loop"][1:], strict=True)]
    return {
        "bare_images_a_second": rates["bare"],
        "loop_images_a_second": rates["loop"],
        "share_of_bare": statistics.median(shares),
        "steps": steps,
    }


def main() -> None:
    """Run all networks with and without a worker and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=6)
    steps = parser.parse_args().steps
    result: dict = {
        "what": "drawn faces of 112 x 112 pixels, PNG, all augmentations, float32, "
        "one compute thread",
        "command": f"python benchmarks/stage1_training.py --steps {steps}",
        "machine": machine(),
    }
    for name, words in NETWORKS.items():
        result[name] = {f"{workers} workers": compare(words, workers, steps) for workers in (0, 1)}
        print(name, json.dumps(result[name], indent=1), flush=True)
    write_json(RESULT, rounded(result))


if __name__ == "__main__":
    main()
