"""Crop many clips in several processes, and survive the death of any of them.

Imports only the decoder, OpenCV and Pillow: a worker needs no more.
"""

import contextlib
import errno
import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import cv2

from mma_mrnnet.crops.store import CropSettings, store_crops
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.files import sweep_leftovers

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


@dataclass
class _Worker:
    """A process, our end of its pipe, and its last task."""

    process: BaseProcess
    connection: Connection
    task: Task

    def give(self, task: Task) -> None:
        self.task = task
        with contextlib.suppress(OSError):  # it died: `receive` will detect this
            self.connection.send(task)

    def receive(self) -> Outcome | None:
        """Return the task's outcome; None if the process died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None


def crop_clips(
    tasks: list[Task], settings: CropSettings, workers: int
) -> Generator[tuple[Task, Outcome], None, None]:
    """Crop clips in parallel; yield each task with its outcome when it is done.

    A worker that dies loses only its current clip, and is replaced. If the iteration stops early,
    the workers are stopped and their unfinished work is removed. No folder may come twice in
    `tasks`. `workers` is the maximum number of processes, with one thread each.
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
                yield task, outcome or _report_death(worker)
    finally:
        _stop(team)


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


def _start(settings: CropSettings, task: Task) -> _Worker:
    context = _prepare_context()
    ours, theirs = context.Pipe()
    process = context.Process(  # type: ignore[attr-defined]  # every concrete context has it
        target=_work, args=(theirs, settings), daemon=True
    )
    process.start()
    theirs.close()
    worker = _Worker(process, ours, task)
    worker.give(task)
    return worker


def _prepare_context() -> BaseContext:
    """Return a fork server, else `spawn`: OpenCV's threads do not survive `fork`.

    A fork server imports the package once; with `spawn` (Windows) every worker does.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    multiprocessing.set_forkserver_preload([__name__])
    # Start the tracker first: if the server starts it, SIGINT is unblocked again.
    resource_tracker.ensure_running()
    # Server and workers inherit the block, so that only this process handles Ctrl-C.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return multiprocessing.get_context("forkserver")


def _work(connection: Connection, settings: CropSettings) -> None:
    """Receive tasks and send outcomes until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("mma_mrnnet").setLevel(logging.ERROR)  # warnings travel in the outcome
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


def _report_death(worker: _Worker) -> Outcome:
    code = worker.process.exitcode
    how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
    return Outcome(
        error=f"the process that read it ended {how}: out of memory, or a fault in the decoder"
    )


def _stop(team: list[_Worker]) -> None:
    for worker in team:
        worker.process.kill()
    for worker in team:
        worker.process.join()
        worker.connection.close()
        folder = worker.task[1].resolve()
        sweep_leftovers(folder.parent, folder)
