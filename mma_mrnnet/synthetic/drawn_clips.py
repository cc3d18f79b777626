"""Simulated reactions as clips of drawn faces, in Hume-Reaction's folder layout; no people."""

import csv
import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from mma_mrnnet.crops.store import ENCODINGS
from mma_mrnnet.files import check_new_folder, replaced_folder
from mma_mrnnet.model.labels import ACTION_UNITS, REACTIONS
from mma_mrnnet.results import Provenance
from mma_mrnnet.synthetic.domains import FPS
from mma_mrnnet.synthetic.drawn_faces import draw_face
from mma_mrnnet.synthetic.reactions import SimulatedClip, hume_like_splits

NOTE = "README.txt"
PROVENANCE = Provenance("drawn", "apache-2.0", made_up=True, labels="simulated")

# First line of `NOTE`.
DRAWN = "Drawn faces of simulated reactions: no person was recorded or rated."

PARTITION_NAMES = {"train": "train", "validation": "devel", "test": "test"}


@dataclass(frozen=True)
class _Task:
    """One clip to draw: its folder, (L, 17) intensities, and the seed of its person."""

    folder: Path
    action_units: NDArray[np.float32]
    person: tuple[int, ...]
    size: int
    fps: float


def write_drawn_reactions(
    folder: str | Path,
    counts: tuple[int, int, int] = (600, 200, 300),
    *,
    seed: int = 0,
    size: int = 64,
    fps: float = FPS,
    workers: int = 1,
) -> None:
    """Write `labels.csv`, `partition.csv` and `feats/Faces/<id>/<ms>.jpg`, as in MuSe 2022.

    Labels and action units are those of `hume_like_splits`. A person looks the same in all
    their frames, including pose, light and grain, and appears in one split only. The same
    arguments give a bit-identical folder for any number of `workers`. With several workers, a
    script needs `if __name__ == "__main__"`. The folder must be missing or empty (else
    ValueError), and appears only when complete. `counts` are clips of train, validation
    (`devel`) and test. `fps` determines file names, which number only frames with a face.
    """
    folder = Path(folder)
    check_new_folder(folder)
    if len(counts) != 3 or min(counts) < 1:
        raise ValueError(
            f"counts needs three numbers from 1 on: train, validation, test; got {counts}"
        )
    if seed < 0 or size < 16 or not 0 < fps <= 1000 or workers < 1:
        raise ValueError(
            "seed must be at least 0, size at least 16, fps in (0, 1000], workers at least 1; "
            f"got {seed}, {size}, {fps}, {workers}"
        )
    splits = hume_like_splits(seed, counts)
    with replaced_folder(folder) as staging:
        _write_tables(staging, splits)
        tasks = [
            _Task(
                staging / "feats" / "Faces" / clip_id,
                _units_of(clip),
                (seed, *clip.subject.encode()),
                size,
                fps,
            )
            for clip_id, _, clip in _numbered(splits)
        ]
        _draw_all(tasks, workers)


def is_drawn(folder: str | Path) -> bool:
    """Return whether `write_drawn_reactions` made this folder."""
    note = Path(folder) / NOTE
    return note.is_file() and note.read_text("utf-8", "replace").startswith(DRAWN)


def _numbered(splits: dict[str, list[SimulatedClip]]) -> Iterator[tuple[str, str, SimulatedClip]]:
    """Yield (five-digit id, split, clip), numbered across splits."""
    clips = ((split, clip) for split in splits for clip in splits[split])
    for number, (split, clip) in enumerate(clips):
        yield f"{number:05d}", split, clip


def _units_of(clip: SimulatedClip) -> NDArray[np.float32]:
    """Return (L, 17) true intensities in [0, 1]."""
    return clip.true_affect[:, -len(ACTION_UNITS) :].clip(0, 1)


def _write_tables(folder: Path, splits: dict[str, list[SimulatedClip]]) -> None:
    numbered = list(_numbered(splits))
    labels = [
        [f"[{clip_id}]", *(f"{label:.9g}" for label in clip.labels)]
        for clip_id, _, clip in numbered
    ]
    partition = [[f"[{clip_id}]", PARTITION_NAMES[split]] for clip_id, split, _ in numbered]
    _write_csv(folder / "labels.csv", [["File_ID", *REACTIONS], *labels])
    _write_csv(folder / "partition.csv", [["Id", "Proposal"], *partition])
    note = (
        f"{DRAWN}\nMade by mma-mrnnet draw in the layout of Hume-Reaction (MuSe 2022), "
        "of which nothing is in here.\n"
    )
    (folder / NOTE).write_text(note, encoding="utf-8")


def _write_csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _draw_all(tasks: list[_Task], workers: int) -> None:
    if workers == 1:
        _wait_for(map(_draw_clip, tasks), len(tasks))
        return
    # Do not fork: OpenCV's threads do not survive it.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin_work) as pool:
        _wait_for(pool.map(_draw_clip, tasks, chunksize=4), len(tasks))


def _begin_work() -> None:
    # Ctrl-C reaches all processes of a terminal; only the first one handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def _wait_for(done: Iterable[None], count: int) -> None:
    for _ in tqdm(done, total=count, desc="drawn clips", unit="clip", mininterval=5, disable=None):
        pass


def _draw_clip(task: _Task) -> None:
    task.folder.mkdir(parents=True)
    for number, units in enumerate(task.action_units):
        # A new generator per frame: it samples the person first, so the person stays the same.
        face = draw_face(units, rng=np.random.default_rng(task.person), size=task.size)
        name = f"{round(1000 * number / task.fps)}.jpg"
        Image.fromarray(face).save(task.folder / name, **ENCODINGS["jpg"])
