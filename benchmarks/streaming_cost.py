"""Time of one more frame by `step`, against reading all frames again; and of a live frame.

    python benchmarks/streaming_cost.py [--runs 30]

Times the recurrent part of the shipped checkpoint and one of the paper's size (GRU 128, mask layer,
T = 30), one stream, one thread. `live` feeds the astronaut photo at 2 frames a second for 40 s.
Writes median CPU milliseconds to `benchmarks/results/streaming_cost.json`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import torch
from machine import machine

from mma_mrnnet import MMAMRNNetConfig, MMAMRNNetForIntensity, load_pretrained
from mma_mrnnet.cli.demo import astronaut, camera_move
from mma_mrnnet.files import write_json
from mma_mrnnet.metrics import rounded
from mma_mrnnet.prediction.streaming import LiveReader

RESULT = Path(__file__).parent / "results" / "streaming_cost.json"
FRAMES = (1, 10, 20, 30)


def milliseconds(calls: list[Callable[[], object]], runs: int) -> list[float]:
    """Return median CPU milliseconds of each call, made in turn after three to warm up."""
    spent: list[list[float]] = [[] for _ in calls]
    for run in range(3 + runs):
        for call, times in zip(calls, spent, strict=True):
            started = time.thread_time()
            call()
            if run >= 3:
                times.append(1000 * (time.thread_time() - started))
    return [statistics.median(times) for times in spent]


@torch.inference_mode()
def by_frame(model: MMAMRNNetForIntensity, runs: int) -> list[dict[str, float]]:
    """Return the cost of the estimate after frame t, by step and by reading t frames again."""
    affect = torch.rand(1, model.config.num_frames, model.config.input_size)
    calls: list[Callable[[], object]] = []
    state = None
    for count in range(1, model.config.num_frames + 1):
        newest = affect[:, count - 1]
        if count in FRAMES:
            calls += [partial(model.step, newest, state), partial(model, affect=affect[:, :count])]
        state = model.step(newest, state).state
    spent = milliseconds(calls, runs)
    return [
        {
            "frame": count,
            "step_ms": round(step, 3),
            "again_ms": round(again, 3),
            "again_over_step": round(again / step, 2),
        }
        for count, step, again in zip(FRAMES, spent[::2], spent[1::2], strict=True)
    ]


def live() -> dict[str, float]:
    """Return median CPU milliseconds of `LiveReader.add`, before and beyond the window."""
    image = next(camera_move(astronaut(), 1, (1280, 720)))
    reader, spent = LiveReader(), []
    for number in range(80):
        started = time.thread_time()
        estimate = reader.add(image, number / 2)
        spent.append(1000 * (time.thread_time() - started))
        if estimate is None or estimate.detection is None:
            raise RuntimeError("every frame should be due and show a face")
    within, beyond = spent[3:30], spent[30:]
    return {
        "within_the_window_ms": round(statistics.median(within), 1),
        "beyond_it_ms": round(statistics.median(beyond), 1),
    }


def main() -> None:
    """Run everything and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    result = {
        "what": "the estimate after frame t of one stream, one thread, CPU milliseconds; "
        "live: 1280x720 images of a face, detector and extractor included",
        "command": f"python benchmarks/streaming_cost.py --runs {runs}",
        "machine": machine(),
        "shipped_attention_gru_96": by_frame(load_pretrained()[0], runs),
        "papers_size_mask_gru_128": by_frame(MMAMRNNetForIntensity(MMAMRNNetConfig()).eval(), runs),
        "live": live(),
    }
    write_json(RESULT, rounded(result))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
