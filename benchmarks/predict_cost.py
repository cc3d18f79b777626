"""Time and memory of `mma-mrnnet predict` on a 12 s 720p clip, and where the time goes.

    python benchmarks/predict_cost.py [--runs 3]

Runs the command as a new process, at 2 frames a second and on every frame, then times each step in
one process, on one thread. Writes `benchmarks/results/predict_cost.json`. CPU seconds are steadier
than wall seconds where cores are shared.
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
from collections import defaultdict
from pathlib import Path

import numpy as np
from machine import machine

RESULT = Path(__file__).parent / "results" / "predict_cost.json"


def as_process(words: list[str], runs: int) -> dict[str, float]:
    """Measure a command after one warm-up: median wall and CPU seconds, peak memory."""
    wall, cpu, peak = [], [], 0
    for number in range(runs + 1):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise RuntimeError(f"{words} failed")
        del before
        if number:
            wall.append(time.perf_counter() - started)
            cpu.append(usage.ru_utime + usage.ru_stime)
            peak = max(peak, usage.ru_maxrss)
    return {
        "wall_s": statistics.median(wall),
        "cpu_s": statistics.median(cpu),
        "peak_mb": peak / 1024,
    }


def by_step(clip: Path) -> dict[str, float]:
    """Measure CPU seconds of each step of a prediction on every frame, in this process."""
    spent: dict[str, float] = defaultdict(float)

    def timed(name: str, call: object, *args: object) -> object:
        started = time.process_time()
        result = call(*args)
        spent[name] += time.process_time() - started
        return result

    import cv2

    cv2.setNumThreads(1)
    from mma_mrnnet.faces.detection import FaceDetector, align_face
    from mma_mrnnet.prediction.checkpoint import open_engine
    from mma_mrnnet.video.reading import read_frames

    engine = timed("load the checkpoint", open_engine)
    detector = timed("load the detector", FaceDetector)
    frames, crops = iter(read_frames(clip, None)), []
    while (frame := timed("decode", next, frames, None)) is not None:
        found = timed("detect", detector, frame.image)
        crops.append(timed("align", align_face, frame.image, found[0].landmarks))
    affect = timed("extract", engine.extract_affect, crops)
    chosen = affect[:: max(len(affect) // 24, 1)][: engine.facts.num_frames]
    values = np.zeros((1, engine.facts.num_frames, affect.shape[1]), np.float32)
    values[0, : len(chosen)] = chosen
    mask = np.arange(engine.facts.num_frames)[None] < len(chosen)
    timed("recurrent part", engine.predict_intensities, values, mask)
    return {**spent, "frames": len(crops)}


def main() -> None:
    """Run both measurements and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "face.mp4"
        make = (
            "from mma_mrnnet.cli.demo import astronaut, camera_move; "
            "from mma_mrnnet.video.writing import write_video; "
            f"write_video({str(clip)!r}, camera_move(astronaut(), 360, (1280, 720)), 30)"
        )
        subprocess.run([sys.executable, "-c", make], check=True)
        command = [sys.executable, "-m", "mma_mrnnet.cli", "predict", str(clip)]
        result = {
            "what": "mma-mrnnet predict on a 12 s 1280x720 clip of 360 frames, one thread",
            "command": f"python benchmarks/predict_cost.py --runs {runs}",
            "machine": machine(),
            "predict": as_process(command, runs),
            "predict_fps_native": as_process([*command, "--fps", "native"], runs),
            "import_only": as_process([sys.executable, "-c", "import mma_mrnnet"], runs),
            "help": as_process([*command[:3], "--help"], runs),
            "predict_with_pytorch": as_process([*command, "--engine", "torch"], runs),
            "cpu_seconds_by_step_on_every_frame": by_step(clip),
        }

    from mma_mrnnet.files import write_json
    from mma_mrnnet.metrics import rounded

    write_json(RESULT, rounded(result))
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
