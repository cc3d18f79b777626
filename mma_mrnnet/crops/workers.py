"""Crop many clips in several processes.

Imports only the decoder, OpenCV and Pillow: a worker needs no more.
"""

import errno
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2

from mma_mrnnet.crops.store import CropSettings, store_crops
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.files import sweep_leftovers
from mma_mrnnet.workers import Lost, run_tasks

Task = tuple[Path, Path]
"""A video, and the folder for its crops."""


@dataclass(frozen=True)
class Outcome:
    """The result of one clip; `faces` is the number of searched frames with a face.

    `disk_full` means that every other clip would fail too.
    """

    frames: int = 0
    faces: int = 0
    warning: str | None = None
    error: str | None = None
    disk_full: bool = False


def crop_clips(
    tasks: list[Task], settings: CropSettings, workers: int
) -> Generator[tuple[Task, Outcome], None, None]:
    """Crop clips in parallel; yield each task with its outcome when it is done.

    Processes that end early cost one clip each (`run_tasks`), and their unfinished work is removed.
    No folder may come twice in `tasks`. Each process has one thread.
    """
    results = run_tasks(
        tasks, partial(_prepare, settings), workers, clean_up=_sweep, preload=__name__
    )
    try:
        for task, outcome in results:
            yield task, Outcome(error=outcome.reason) if isinstance(outcome, Lost) else outcome
    finally:
        results.close()


def _prepare(settings: CropSettings) -> Callable[[Task], Outcome]:
    cv2.setNumThreads(1)
    detector = FaceDetector()
    return lambda task: crop_clip(*task, settings, detector)


def _sweep(task: Task) -> None:
    folder = task[1].resolve()
    sweep_leftovers(folder.parent, folder)


def crop_clip(video: Path, folder: Path, settings: CropSettings, detector: FaceDetector) -> Outcome:
    """Store the crops of one clip; every failure becomes an outcome."""
    try:
        index = store_crops(video, folder, settings, detector)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return Outcome(error=f"cannot be written: {error}", disk_full=full)
    except Exception as error:  # the other clips go on
        reason = " ".join(str(error).split()).removeprefix(f"{video}: ")
        return Outcome(error=reason or type(error).__name__)
    return Outcome(len(index.frames), index.faces, index.warning)
