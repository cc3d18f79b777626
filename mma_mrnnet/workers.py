"""Do tasks in several processes, and survive the death of any of them."""

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

LEAVE_S = 3.0  # time for an idle worker to end by itself


@dataclass(frozen=True)
class Lost:
    """The result of a task whose worker died or was stopped, in words."""

    reason: str


@dataclass(frozen=True)
class _NotReady:
    """What a worker sends if its preparation failed."""

    reason: str


@dataclass
class _Worker:
    """A process, our end of its pipe, its last task and when that must be done."""

    process: BaseProcess
    connection: Connection
    limit_s: float | None
    task: Any = None
    deadline: float | None = None

    def give(self, task: Any) -> None:
        self.task = task
        self.start_clock()
        with contextlib.suppress(OSError):  # it died: `receive` will detect this
            self.connection.send(task)

    def start_clock(self) -> None:
        self.deadline = None if self.limit_s is None else time.monotonic() + self.limit_s

    def receive(self) -> Any:
        """Return the task's result; `Lost` if the process died, None if it is ready to begin."""
        try:
            result = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return self._describe_death()
        if isinstance(result, _NotReady):
            raise RuntimeError(f"a worker cannot start: {result.reason}")
        if result is None:
            self.start_clock()
        return result

    def is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _describe_death(self) -> Lost:
        code = self.process.exitcode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return Lost(f"the process that read it ended {how}: out of memory, or a fault in a decoder")


def run_tasks(
    tasks: Iterable[Task],
    prepare: Callable[[], Callable[[Task], Result]],
    workers: int,
    *,
    limit_s: float | None = None,
    clean_up: Callable[[Task], None] | None = None,
    preload: str = __name__,
) -> Generator[tuple[Task, Result | Lost], None, None]:
    """Do tasks in parallel; yield each with its result, in the order in which they are done.

    A worker that dies, or takes longer than `limit_s` seconds, loses only its current task, and is
    replaced. If the iteration stops early, the workers are stopped. Raises RuntimeError if a
    worker's preparation fails.

    `prepare` is called once in every worker, and returns what does a task. Both must be picklable;
    a task catches its own exceptions, and its result is not None. `workers` is the maximum number
    of processes. `clean_up` is called with the current task of a worker that died or was stopped.
    `preload` is a module that workers share in memory where the system can fork.
    """
    waiting = deque(tasks)
    team: list[_Worker] = []

    def start() -> None:
        worker = _start(prepare, preload, limit_s)
        worker.give(waiting.popleft())
        worker.deadline = None  # its preparation does not count
        team.append(worker)

    try:
        for _ in range(min(workers, len(waiting))):
            start()
        while team:
            ready = wait([worker.connection for worker in team], _time_left(team))
            ended = [each for each in team if each.connection in ready or each.is_late()]
            for worker in ended:
                task, is_late = worker.task, worker.connection not in ready
                late = Lost(f"not done after {limit_s} s, so it was stopped")
                result = late if is_late else worker.receive()
                if result is None:
                    continue
                if waiting and not isinstance(result, Lost):
                    worker.give(waiting.popleft())
                else:
                    _stop(worker, clean_up, is_idle=not isinstance(result, Lost))
                    team.remove(worker)
                if isinstance(result, Lost) and waiting:
                    start()
                yield task, result
    finally:
        for worker in team:
            _stop(worker, clean_up)


def _time_left(team: list[_Worker]) -> float | None:
    deadlines = [worker.deadline for worker in team if worker.deadline is not None]
    return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None


def _start(prepare: Callable[[], Callable], preload: str, limit_s: float | None) -> _Worker:
    context = _prepare_context(preload)
    ours, theirs = context.Pipe()
    process = context.Process(  # type: ignore[attr-defined]  # every concrete context has it
        target=_work, args=(theirs, prepare), daemon=True
    )
    process.start()
    theirs.close()
    return _Worker(process, ours, limit_s)


def _prepare_context(preload: str) -> BaseContext:
    """Return a fork server, else `spawn`: threads of OpenCV and PyTorch do not survive `fork`.

    A fork server imports the package once; with `spawn` (Windows) every worker does.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    multiprocessing.set_forkserver_preload([preload])
    # Start the tracker first: if the server starts it, SIGINT is unblocked again.
    resource_tracker.ensure_running()
    # Server and workers inherit the block, so that only this process handles Ctrl-C.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return multiprocessing.get_context("forkserver")


def _work(connection: Connection, prepare: Callable[[], Callable]) -> None:
    """Receive tasks and send results until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("mma_mrnnet").setLevel(logging.ERROR)  # warnings travel in the results
    try:
        work = prepare()
    except Exception as error:  # else every task would be lost, one by one
        connection.send(_NotReady(" ".join(str(error).split()) or type(error).__name__))
        return
    with contextlib.suppress(EOFError, BrokenPipeError):
        connection.send(None)  # ready
        while True:
            connection.send(work(connection.recv()))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _stop(
    worker: _Worker, clean_up: Callable[[Any], None] | None, *, is_idle: bool = False
) -> None:
    worker.connection.close()
    if is_idle:  # it ends by itself now, and frees what it holds
        worker.process.join(LEAVE_S)
    worker.process.kill()
    worker.process.join()
    if clean_up is not None:
        clean_up(worker.task)
