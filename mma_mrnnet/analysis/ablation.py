"""`mma-mrnnet ablate`: train the missing runs of a study, then write numbers, tables and plot."""

import copy
import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from filelock import FileLock, Timeout
from huggingface_hub.errors import StrictDataclassError
from numpy.typing import NDArray
from transformers import PreTrainedModel

from mma_mrnnet.analysis.study import (
    RUN,
    ExtractorRecord,
    RunRecord,
    Study,
    change_data,
    list_settings,
    write_record,
)
from mma_mrnnet.analysis.study_page import draw_differences, make_page
from mma_mrnnet.analysis.study_summary import PREDICTIONS, StudySummary, summarise_study
from mma_mrnnet.analysis.variants import TRANSFER, Variant, choose_variants
from mma_mrnnet.files import replaced_file, write_json, write_text
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.results import Results
from mma_mrnnet.synthetic.domains import domain_named
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.checkpoints import complete_checkpoints
from mma_mrnnet.training.clip_corpora import input_of, load_clips, read_corpus
from mma_mrnnet.training.datasets import ClipDataset
from mma_mrnnet.training.loop import fit, predict_dataset
from mma_mrnnet.training.stages import Stage, mma_stage, mrnn_stage

FAILED = "failed"
"""Prefix of a reason that is an error instead of a property of the data."""

Tell = Callable[[str], None]


def ablate(
    study: Study,
    *,
    questions: Sequence[str] = (),
    names: Sequence[str] = (),
    seeds: int = 3,
    jobs: int = 1,
    tell: Tell = lambda line: None,
) -> dict[str, str]:
    """Train all chosen variants and seeds that are not done, and report all finished runs.

    Writes `ablations.json`, `ablations.md` and `ablations.png` into the study's folder.
    Without `questions` and `names` it trains all variants, with seeds from 0. `tell` gets one
    line per run. Returns {variant: why it could not be trained}.

    Raises:
        ValueError: an unknown question or variant, a folder with another study, or no run of
            the full model.
    """
    if not questions and not names:
        questions = [name for name in study.questions if name != TRANSFER or study.transfer]
    chosen, left_out = _choose_possible(study, questions, names)
    study.check_transfer()
    study.claim_folder()
    try:
        with FileLock(study.folder / ".lock", timeout=0):
            left_out |= run_grid(study, chosen, range(seeds), jobs, tell)
    except Timeout as error:
        raise ValueError(f"{study.folder}: another command is at work there") from error
    write_report(summarise_study(study, study.variants, left_out, jobs), study.folder, tell)
    return left_out


def write_report(summary: StudySummary, folder: Path, tell: Tell = lambda line: None) -> None:
    """Write a study's numbers, tables and plot into its folder."""
    write_json(folder / "ablations.json", summary.to_json())
    write_text(folder / "ablations.md", f"# Ablations\n\n{make_page(summary)}")
    try:
        draw_differences(summary, folder / "ablations.png")
    except ImportError:
        tell("no plot: pip install matplotlib")


def _choose_possible(
    study: Study, questions: Sequence[str], names: Sequence[str]
) -> tuple[list[Variant], dict[str, str]]:
    """Return the variants to train, and {variant: why it cannot be trained} for the others."""
    known = list(study.questions)
    chosen = choose_variants(study.variants, known, questions, names)
    obstacles = {variant.name: study.find_obstacle(variant) for variant in chosen}
    reasons = {name: reason for name, reason in obstacles.items() if reason is not None}
    for name in names:
        if name in reasons:
            raise ValueError(f"--variants {name}: {reasons[name]}")
    if TRANSFER in questions and not study.transfer:
        raise ValueError("--questions transfer needs --transfer: the data to try the models on")
    possible = [variant for variant in study.variants if variant.name not in reasons]
    # Choose again: baselines of impossible variants need no training.
    return choose_variants(possible, known, questions, names), reasons


# The grid of runs -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One training of a study: a variant's network, or the extractor it reads."""

    variant: Variant
    seed: int
    of_extractor: bool

    @property
    def name(self) -> str:
        """Name for messages."""
        return f"{'extractor of ' * self.of_extractor}{self.variant.name}, seed {self.seed}"


def run_grid(
    study: Study, variants: Sequence[Variant], seeds: Sequence[int], jobs: int, tell: Tell
) -> dict[str, str]:
    """Train what is not done: first the extractors, then the variants that read them.

    The `jobs` parallel processes have `base.threads` threads each. Returns {variant: why it
    could not be trained}; after a reason that starts with `FAILED`, the next call tries again.

    Raises:
        ValueError: a finished run has other settings.
        ChildProcessError: a process was killed from outside.
    """
    # Seed by seed, so that a study stopped early has complete comparisons.
    grid = [(variant, seed) for seed in seeds for variant in variants]
    extractors: dict[Path, Job] = {}
    for variant, seed in grid if study.frames is not None else ():
        if variant.reads_affect and not study.is_done(
            ExtractorRecord, study.extractor_arguments(variant, seed)
        ):
            folder = study.extractor_folder(variant, seed)
            extractors.setdefault(folder, Job(variant, seed, of_extractor=True))
    untrained = {
        study.extractor_folder(job.variant, job.seed): reason
        for job, reason in _run_jobs(study, list(extractors.values()), jobs, tell)
    }
    failures: dict[str, str] = {}
    clips: list[Job] = []
    for variant, seed in grid:
        reason = untrained.get(study.extractor_folder(variant, seed))
        if variant.reads_affect and reason is not None:
            failures.setdefault(variant.name, f"{FAILED}: its extractor with seed {seed}: {reason}")
        elif not study.is_done(RunRecord, study.run_arguments(variant, seed)):
            clips.append(Job(variant, seed, of_extractor=False))
    for job, reason in _run_jobs(study, clips, jobs, tell):
        failures.setdefault(job.variant.name, reason)
    return failures


def _run_jobs(study: Study, work: Sequence[Job], jobs: int, tell: Tell) -> list[tuple[Job, str]]:
    """Run each job in its own process; return the failed ones with reasons."""
    if not work:
        return []
    failures: list[tuple[Job, str]] = []
    others = set(multiprocessing.active_children())
    # Spawn: a forked child inherits locks of threads that it does not have.
    pool = ProcessPoolExecutor(
        min(jobs, len(work)),
        multiprocessing.get_context("spawn"),
        _begin_worker,
        (study.base.threads,),
    )
    futures: dict[Future[str | None], Job] = {
        pool.submit(_run_job, study, job): job for job in work
    }
    try:
        for count, future in enumerate(as_completed(futures), 1):
            job = futures[future]
            try:
                reason = future.result()
            except BrokenProcessPool as error:
                raise ChildProcessError(
                    f"a process ended while it trained {job.name}, or one beside it (memory?)"
                ) from error
            if reason is not None:
                failures.append((job, reason))
            tell(f"[{count}/{len(work)}] {job.name}{'' if reason is None else f': {reason}'}")
    finally:
        # After an interruption, training continues from its checkpoint next time.
        if any(not future.done() for future in futures):
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
    return failures


def _run_job(study: Study, job: Job) -> str | None:
    """Train; return an error as text, because some exceptions cannot be pickled."""
    train = train_extractor if job.of_extractor else train_clips
    try:
        train(study, job.variant, job.seed)
    except (ValueError, StrictDataclassError) as error:  # these data or settings do not allow it
        return " ".join(str(error).split())
    except Exception as error:  # must not stop the other variants; the tables name it
        return f"{FAILED} with seed {job.seed}: {type(error).__name__}: {error}"
    return None


def _begin_worker(threads: int) -> None:
    """Silence a worker, and end it without a traceback if its parent is interrupted or gone."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    for name in ("mma_mrnnet", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the only way for a thread to end its process


# One run ----------------------------------------------------------------------------------------


def train_extractor(study: Study, variant: Variant, seed: int) -> None:
    """Train the extractor that a run reads."""
    args = study.extractor_arguments(variant, seed)
    started = time.perf_counter()
    results = _train(mma_stage, args)
    best = results.training.history[results.training.best_epoch - 1]
    seconds = time.perf_counter() - started
    record = ExtractorRecord(seed, seconds, best.scores, list_settings(args))
    write_record(args.output / RUN, record)
    _remove_states(args.output)


def train_clips(study: Study, variant: Variant, seed: int) -> None:
    """Train a run's network on clips, and write its outputs for the held-out clips."""
    folder, args = study.run_folder(variant, seed), study.run_arguments(variant, seed)
    started = time.perf_counter()
    stage = (variant.make_stage or mrnn_stage)(args)
    results = _train(lambda _: stage, args)
    model = type(stage.model).from_pretrained(args.output / "model").eval()
    clips = cast("ClipDataset", stage.validation) if stage.held_out is None else stage.held_out
    arrays, refused = _predict(stage, model, clips, args), {}
    for data in study.transfer if variant.make_stage is None else ():
        elsewhere = change_data(args, data)
        try:
            rows = _read_held_out(elsewhere, stage, model)
        except ValueError as error:  # for example, stored crops with another frame rate
            refused[data] = str(error)
            continue
        found = _predict(stage, model, rows, elsewhere)
        arrays |= {f"{data}|{name}": values for name, values in found.items()}
    with replaced_file(folder / PREDICTIONS) as staging:
        np.savez_compressed(staging, allow_pickle=False, **arrays)
    training = results.training.to_json()
    del training["history"], training["hardware"]
    record = RunRecord(
        variant=variant.name,
        seed=seed,
        seconds=time.perf_counter() - started,
        labels=list(model.config.label_names),
        evaluated_on="validation" if stage.held_out is None else "test",
        data=results.data.to_json(),
        parameters_of_stage_2=_count_own_parameters(model),
        training=training,
        not_tried_on=refused,
        settings=list_settings(args),
    )
    write_record(folder / RUN, record)
    _remove_states(args.output)
    shutil.rmtree(args.output / "model", ignore_errors=True)


def _train(make_stage: Callable[[TrainArguments], Stage], args: TrainArguments) -> Results:
    """Train, resuming if interrupted before, and return the results."""
    args.output.mkdir(parents=True, exist_ok=True)
    args = replace(args, resume=bool(complete_checkpoints(args.output)))
    results = fit(make_stage(args), args)
    if results is None:
        raise RuntimeError("a study trains in one process")
    return results


def _read_held_out(args: TrainArguments, stage: Stage, model: PreTrainedModel) -> ClipDataset:
    """Return test clips of other data (validation if unlabelled), or raise ValueError."""
    # A copy, because reading clips may move the extractor to another device.
    own = cast("MMAMRNNetForIntensity", copy.deepcopy(model))
    read = input_of(own, stage.processor)
    splits = load_clips(read_corpus(args), args, read).splits
    test = splits.get("test")
    return test.rows if test is not None and len(test.rows) else splits["validation"].rows


def _predict(
    stage: Stage, model: PreTrainedModel, rows: ClipDataset, args: TrainArguments
) -> dict[str, NDArray[np.generic]]:
    """Return outputs and labels (N, K), seconds with a face (N,) and people (N,) of reactions."""
    outputs, labels = predict_dataset(stage, model, rows, args)
    chosen = np.array(rows.kinds) == "reaction"  # as in the scores of training
    rate = args.sampling_fps
    kind, _, domain = args.data.partition(":")
    if kind == "simulated":
        rate = domain_named(domain or None).rate(rate)
    people = [subject or clip for subject, clip in zip(rows.subjects, rows.clip_ids, strict=True)]
    return {
        "intensities": outputs["intensities"].numpy()[chosen],
        "labels": labels["labels"].numpy()[chosen],
        "seconds": (rows.lengths / rate)[chosen],
        "people": np.array(people)[chosen],
    }


def _count_own_parameters(model: PreTrainedModel) -> int:
    extractor = getattr(model, "mma", None)
    frozen = () if extractor is None else extractor.parameters()
    return sum(part.numel() for part in model.parameters()) - sum(part.numel() for part in frozen)


def _remove_states(output: Path) -> None:
    """Delete what only further training needs: a study has a hundred runs."""
    for name in ("checkpoints", "best"):
        shutil.rmtree(output / name, ignore_errors=True)
