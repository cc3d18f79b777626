"""All runs of a study, several at once; what is done stays done, and one that fails does not stop the others."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from huggingface_hub.errors import StrictDataclassError

from mma_mrnnet.analysis.ablation.runs import train_clips, train_extractor
from mma_mrnnet.analysis.ablation.study import Study
from mma_mrnnet.analysis.ablation.variants import Variant

FAILED = "failed"
"""First word of a reason that is an error, and no property of the data."""

Job = tuple[Callable[[Study, Variant, int], None], Variant, int]


def run_grid(
    study: Study,
    variants: Sequence[Variant],
    seeds: Sequence[int],
    jobs: int,
    tell: Callable[[str], None],
) -> dict[str, str]:
    """Runs what is not done yet: first the extractors, then what reads their affect.

    Args:
        study: the study.
        variants: to run; none that the study finds impossible.
        seeds: each variant is trained with each.
        jobs: runs at once, each a process with `base.threads` threads.
        tell: gets a line for every run that ends.

    Returns:
        {variant: why it could not be trained}; a reason that begins with `FAILED` is an error, tried again next time.

    Raises:
        ValueError: a run is there that was trained with other settings.
        ChildProcessError: a process was killed from outside.
    """
    failures: dict[str, str] = {}
    waiting: dict[Path, Job] = {}
    if study.frames is not None:
        for variant, seed in _pairs(variants, seeds):
            folder = study.extractor_folder(variant, seed)
            if not variant.pixels and not study.is_done(
                folder, study.extractor_arguments(variant, seed)
            ):
                waiting.setdefault(folder, (train_extractor, variant, seed))
    untrained = _run_all(study, list(waiting.values()), jobs, tell)
    clips: list[Job] = []
    for variant, seed in _pairs(variants, seeds):
        reason = None if variant.pixels else untrained.get(study.extractor_folder(variant, seed))
        if reason is not None:
            failures.setdefault(variant.name, f"{FAILED}: its extractor with seed {seed}: {reason}")
        elif not study.is_done(study.run_folder(variant, seed), study.arguments(variant, seed)):
            clips.append((train_clips, variant, seed))
    names = {study.run_folder(variant, seed): variant.name for _, variant, seed in clips}
    for folder, reason in _run_all(study, clips, jobs, tell).items():
        failures.setdefault(names[folder], reason)
    return failures


def _pairs(variants: Sequence[Variant], seeds: Sequence[int]) -> list[tuple[Variant, int]]:
    """Seed by seed: a study that is stopped early has whole comparisons."""
    return [(variant, seed) for seed in seeds for variant in variants]


def _run_all(
    study: Study, work: Sequence[Job], jobs: int, tell: Callable[[str], None]
) -> dict[Path, str]:
    """{folder of a training: why it could not be done}."""
    if not work:
        return {}
    failures: dict[Path, str] = {}
    # Spawned: a forked process shares locks of threads that are not there.
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(
        min(jobs, len(work)),
        multiprocessing.get_context("spawn"),
        _begin_worker,
        (study.base.threads,),
    )
    futures: dict[Future, Job] = {pool.submit(_reason, study, *job): job for job in work}
    try:
        for number, future in enumerate(as_completed(futures), 1):
            train, variant, seed = futures[future]
            of_extractor = train is train_extractor
            folder = (
                study.extractor_folder(variant, seed)
                if of_extractor
                else study.run_folder(variant, seed)
            )
            what = f"{'extractor of ' if of_extractor else ''}{variant.name}, seed {seed}"
            try:
                reason = future.result()
            except BrokenProcessPool as error:
                raise ChildProcessError(
                    f"a process ended while it trained {what}, or one beside (memory?)"
                ) from error
            if reason is not None:
                failures[folder] = reason
            tell(f"[{number}/{len(work)}] {what}{'' if reason is None else f': {reason}'}")
    finally:
        if any(
            not future.done() for future in futures
        ):  # interrupted: training goes on from its checkpoint next time
            for process in set(multiprocessing.active_children()) - set(others):
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
    return failures


def _reason(
    study: Study, train: Callable[[Study, Variant, int], None], variant: Variant, seed: int
) -> str | None:
    """Trains; why it could not, in words, since not every exception travels to another process."""
    try:
        train(study, variant, seed)
    except (
        ValueError,
        StrictDataclassError,
    ) as error:  # these data, or these settings, do not allow it
        return " ".join(str(error).split())
    except Exception as error:  # one variant's failure, named in the tables, is not the others'
        return f"{FAILED} with seed {seed}: {type(error).__name__}: {error}"
    return None


def _begin_worker(threads: int) -> None:
    """Quiet, and gone without a trace where the keyboard interrupts or the parent is gone: training can go on later."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    logging.getLogger("mma_mrnnet").setLevel(logging.ERROR)
    logging.getLogger("accelerate").setLevel(logging.ERROR)


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a thread cannot end its process otherwise
