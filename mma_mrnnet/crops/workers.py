"""Crops of many clips by several processes, of which any may die. What each one does is in `crop_store.py`.

Light on purpose: a worker needs the decoder, OpenCV and Pillow alone.
"""

import contextlib
import errno
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2

from mma_mrnnet.crops.store import CropSettings, remove_leftovers, store_crops
from mma_mrnnet.faces.detection import FaceDetector


@dataclass(frozen=True)
class Outcome:
    """What became of a clip.

    Attributes:
        frames: how many were looked at ...
        faces: ... and how many of them had a face.
        warning: what a damaged video lost, or None.
        error: why there are no crops, or None.
        disk_full: whether the error is one that every other clip would meet too.
    """

    frames: int = 0
    faces: int = 0
    warning: str | None = None
    error: str | None = None
    disk_full: bool = False


@dataclass
class _Worker:
    """A process, our end of its pipe, and what it was given last: a video and the folder of its crops."""

    process: BaseProcess
    connection: Connection
    task: tuple[Path, Path]

    def give(self, task: tuple[Path, Path]) -> None:
        self.task = task
        with contextlib.suppress(OSError):  # it died meanwhile: reading from it will tell
            self.connection.send(task)

    def receive(self) -> Outcome | None:
        """What became of the task; None where the process died over it."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None


def crop_clips(
    tasks: list[tuple[Path, Path]], settings: CropSettings, workers: int
) -> Iterator[tuple[tuple[Path, Path], Outcome]]:
    """Works through (video, folder) pairs, and yields each with its outcome as it comes.

    A worker that dies costs the clip that it had, and is replaced. When the iteration is dropped or interrupted, the
    workers are stopped and what they had begun is removed.

    Args:
        tasks: no folder twice.
        settings: for all of them.
        workers: processes at most; each computes on one thread.
    """
    waiting = deque(tasks)
    team: list[_Worker] = []
    try:
        team.extend(_start(settings, waiting.popleft()) for _ in range(min(workers, len(tasks))))
        while team:
            ready = wait([worker.connection for worker in team])
            for worker in [worker for worker in team if worker.connection in ready]:
                task, outcome = worker.task, worker.receive()
                if outcome is not None and waiting:
                    worker.give(waiting.popleft())
                else:
                    _stop([worker])
                    team.remove(worker)
                if outcome is None and waiting:
                    team.append(_start(settings, waiting.popleft()))
                yield task, outcome or _death_of(worker)
    finally:
        _stop(team)


def crop_clip(video: Path, folder: Path, settings: CropSettings, detector: FaceDetector) -> Outcome:
    """Stores the crops of one clip; whatever goes wrong with it is told in the outcome."""
    try:
        index = store_crops(video, folder, settings, detector)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return Outcome(error=f"cannot be written: {error}", disk_full=full)
    except Exception as error:  # whatever one clip does, the others go on
        return Outcome(
            error=" ".join(str(error).split()).removeprefix(f"{video}: ") or type(error).__name__
        )
    return Outcome(len(index.frames), index.faces, index.warning)


def _start(settings: CropSettings, task: tuple[Path, Path]) -> _Worker:
    context = _context()
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, settings), daemon=True)
    process.start()
    theirs.close()
    worker = _Worker(process, ours, task)
    worker.give(task)
    return worker


def _context() -> BaseContext:
    """How workers are started: not by `fork`, which OpenCV's and torch's threads do not survive.

    A fork server pays once for the package's import, which brings in transformers; with `spawn`, all that there is on
    Windows, every worker pays.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    multiprocessing.set_forkserver_preload([__name__])
    resource_tracker.ensure_running()  # the server's start would start it, and its start lets SIGINT through again
    # Inherited by the server and the workers: Ctrl-C reaches every process of a terminal, and we alone answer it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return multiprocessing.get_context("forkserver")


def _work(connection: Connection, settings: CropSettings) -> None:
    """A worker's life: a task in, an outcome out, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("mma_mrnnet").setLevel(
        logging.ERROR
    )  # a damaged file's warning travels in the outcome
    cv2.setNumThreads(1)
    detector = FaceDetector()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            video, folder = connection.recv()
            connection.send(crop_clip(video, folder, settings, detector))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _death_of(worker: _Worker) -> Outcome:
    code = worker.process.exitcode
    how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    return Outcome(
        error=f"the process that read it ended {how}: out of memory, or a fault in the decoder"
    )


def _stop(team: list[_Worker]) -> None:
    """Ends the workers and removes what they had begun."""
    for worker in team:
        worker.process.kill()
    for worker in team:
        worker.process.join()
        worker.connection.close()
        remove_leftovers(worker.task[1])
