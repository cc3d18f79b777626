"""Stage 2's training at Hume-Reaction's size: the mask layer against packed sequences.

    python benchmarks/stage2_training.py [--clips 15806] [--packed_steps 8]

Makes up affect of as many clips as Hume-Reaction trains on, at 2 frames a second (T = 30) and at 30
(T = 450), in one memory-mapped file. Trains an epoch through the package's loop, and a few steps of
the usual baseline, the same network with `pack_padded_sequence`. Step times are CPU seconds on the
same batches in turn; each memory peak is of its own process. Writes
`benchmarks/results/stage2_training.json`.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine

RESULT = Path(__file__).parent / "results" / "stage2_training.json"
RATES = {"2 fps": (2.0, 30, 23.6, 2.7), "30 fps": (30.0, 450, 349.0, 40.0)}
"""Frames a second, T, and mean and standard deviation of the clips' lengths."""

BATCH = 64


def make_clips(folder: Path, clips: int, rate: str) -> None:
    """Make affect and labels of random numbers, as one memory-mapped data set."""
    import datasets
    import numpy as np

    from mma_mrnnet.features.records import clip_features

    _, most, mean, deviation = RATES[rate]
    rng = np.random.default_rng(0)

    def rows() -> object:
        for number in range(clips):
            length = int(np.clip(round(rng.normal(mean, deviation)), 1, most))
            yield {
                "clip_id": f"{number:05d}",
                "subject": "",
                "kind": "reaction",
                "affect": rng.random((length, 26), dtype=np.float32),
                "labels": rng.random(7, dtype=np.float32),
            }

    datasets.Dataset.from_generator(
        rows, features=clip_features(7), cache_dir=str(folder / "cache")
    ).save_to_disk(str(folder / "rows"))


def stage_of(folder: Path, rate: str, packed: bool) -> tuple[object, object]:
    """Return the stage and its arguments; `packed` gives the usual baseline."""
    import datasets
    import torch
    from torch import Tensor
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    from mma_mrnnet import (
        MMAConfig,
        MMAMRNNetConfig,
        MMAMRNNetForIntensity,
        MMAMRNNetVideoProcessor,
    )
    from mma_mrnnet.training.arguments import parse_arguments
    from mma_mrnnet.training.datasets import ClipCollator, ClipDataset
    from mma_mrnnet.training.sampling import shuffled
    from mma_mrnnet.training.stages import Stage

    fps, most, _, _ = RATES[rate]
    torch.manual_seed(0)
    small = {"layer_type": "basic", "embedding_size": 8, "hidden_sizes": [8], "depths": [1]}
    config = MMAMRNNetConfig(
        mma_config=MMAConfig(backbone_config=small, image_size=32),
        num_frames=most,
        sampling_fps=fps,
    )
    model = MMAMRNNetForIntensity(config)
    if packed:

        def forward(affect: Tensor, frame_mask: Tensor) -> Tensor:
            sequence = pack_padded_sequence(
                affect, frame_mask.sum(1), batch_first=True, enforce_sorted=False
            )
            states, _ = model.rnn.gru(sequence)
            return pad_packed_sequence(states, batch_first=True, total_length=most)[0]

        model.rnn.forward = forward
    processor = MMAMRNNetVideoProcessor(num_frames=most)
    train = ClipDataset.from_rows(datasets.load_from_disk(str(folder / "rows")))
    words = [
        "--stage",
        "mrnn",
        "--data",
        "simulated",
        "--mma",
        "none",
        "--output",
        str(folder / "run"),
    ]
    args = parse_arguments([*words, "--epochs", "1", "--batch_size", str(BATCH)])
    stage = Stage(
        name="mrnn",
        model=model,
        processor=processor,
        train=train,
        validation=train,
        order=shuffled(len(train)),
        train_collator=ClipCollator(processor),
        collator=ClipCollator(processor),
        output_names=("intensities",),
        loss_names=("logits",),
        score=lambda outputs, labels: {"none": 0.0},
        score_name="none",
        finish=lambda model, predict: {},
        description={},
        fingerprint="",
    )
    return stage, args


def epoch(folder: Path, rate: str, packed: bool, steps: int) -> dict[str, float]:
    """Measure an epoch through the loop (or `steps` steps): seconds and peak memory."""
    import torch

    from mma_mrnnet.training.loop import Run

    stage, args = stage_of(folder, rate, packed)
    torch.set_num_threads(1)
    if steps:
        count = steps * BATCH
        stage.order = lambda generator: torch.randperm(len(stage.train), generator=generator)[
            :count
        ]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    run = Run(stage, args)
    wall, cpu = time.perf_counter(), time.process_time()
    run.train_epoch()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    done = len(run.sampler) // BATCH
    seconds = {"steps": done, "wall_s": wall, "cpu_s": cpu, "cpu_s_a_step": cpu / done}
    return {**seconds, "peak_mb": peak, "peak_mb_before_training": before}


def side_by_side(folder: Path, rate: str, steps: int) -> dict[str, float]:
    """Return median CPU seconds of a whole step of both, in turn, and their ratio."""
    import torch

    from mma_mrnnet.training.loop import Run

    torch.set_num_threads(1)
    spent: dict[str, list[float]] = {"masked": [], "packed": []}
    runs = {name: Run(*stage_of(folder, rate, name == "packed")) for name in spent}
    batches = {name: iter(run.train) for name, run in runs.items()}
    for run in runs.values():
        run.model.train()
    for _ in range(steps + 1):
        for name, run in runs.items():
            started = time.process_time()
            run.update(next(batches[name]))
            spent[name].append(time.process_time() - started)
    medians = {
        name: statistics.median(seconds[1:]) for name, seconds in spent.items()
    }  # the first one warms up
    return {**{f"{name}_cpu_s_a_step": value for name, value in medians.items()}, "steps": steps,
            "packed_over_masked": medians["packed"] / medians["masked"]}  # fmt: skip


def in_process(*words: str) -> dict[str, float]:
    """Run one part of this script in a process of its own and return its result."""
    command = [sys.executable, __file__, *words]
    done = subprocess.run(
        command,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run all parts and write the result; or one part, named by `--part`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=15806)
    parser.add_argument("--packed_steps", type=int, default=8)
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        name, rate, folder = args.part
        parts = {
            "make": lambda: make_clips(Path(folder), args.clips, rate) or {},
            "masked": lambda: epoch(Path(folder), rate, packed=False, steps=0),
            "packed": lambda: epoch(Path(folder), rate, packed=True, steps=args.packed_steps),
            "both": lambda: side_by_side(Path(folder), rate, args.packed_steps),
        }
        print(json.dumps(parts[name]()))
        return
    result: dict = {
        "what": f"{args.clips} made-up clips, batch {BATCH}, GRU 128, dense 32, float32, "
        "one thread",
        "command": f"python benchmarks/stage2_training.py --clips {args.clips} "
        f"--packed_steps {args.packed_steps}",
        "machine": machine(),
    }
    for rate in RATES:
        with tempfile.TemporaryDirectory() as folder:
            options = ["--clips", str(args.clips), "--packed_steps", str(args.packed_steps)]
            in_process(*options, "--part", "make", rate, folder)
            result[rate] = {
                name: in_process(*options, "--part", name, rate, folder)
                for name in ("both", "packed", "masked")
            }
            result[rate]["affect_on_disk_mb"] = sum(
                path.stat().st_size for path in Path(folder, "rows").rglob("*") if path.is_file()
            ) / 2**20  # fmt: skip
            print(rate, json.dumps(result[rate], indent=1), flush=True)

    from mma_mrnnet.files import write_json
    from mma_mrnnet.metrics import rounded

    write_json(RESULT, rounded(result))


if __name__ == "__main__":
    main()
