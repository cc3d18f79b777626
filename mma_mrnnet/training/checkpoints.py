"""Checkpoints: write the whole state of a run, find it again, verify it before loading.

A foreign folder must not run code: progress is JSON, and Accelerate loads its own files with
`weights_only=True`. We register no objects with Accelerate, because it unpickles those.
"""

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, gather_object, parse_flag_from_env
from accelerate.utils.other import load
from safetensors import SafetensorError

from mma_mrnnet.files import file_digest, replaced_folder, sweep_leftovers, write_json
from mma_mrnnet.metrics import rounded
from mma_mrnnet.results import Epoch, Record, Score
from mma_mrnnet.training.arguments import MAY_CHANGE, TrainArguments, plain_values

logger = logging.getLogger(__name__)

COMPLETE = "COMPLETE"
"""Written last: the settings of the run, and a digest of every other file."""

PROGRESS = "progress.json"


@dataclass
class Progress(Record):
    """State of a run besides weights, optimizer and random states.

    Attributes:
        epoch: finished epochs.
        items: training items used in the unfinished epoch, over all processes.
        loss_total: sum of its losses; `updates` is their number.
        best_score: None before the first epoch, or if all scores were NaN.
        best_epoch: counted from 1; 0 before the first epoch.
    """

    epoch: int = 0
    items: int = 0
    loss_total: float = 0.0
    updates: int = 0
    best_score: Score = None
    best_epoch: int = 0
    history: list[Epoch] = field(default_factory=list)
    seconds: float = 0.0

    def end_epoch(self, score: float, scores: dict[str, float]) -> None:
        """Record the epoch that was just trained and validated."""
        self.epoch += 1
        loss = self.loss_total / self.updates
        row = Epoch(self.epoch, loss, score, self.seconds, dict(scores))
        self.history.append(Epoch.from_json(rounded(row.to_json())))
        self.items, self.loss_total, self.updates = 0, 0.0, 0
        best = -math.inf if self.best_score is None else self.best_score
        if (
            score > best or self.best_epoch == 0
        ):  # NaN is never better; any number is better than NaN
            self.best_score = None if math.isnan(score) else score
            self.best_epoch = self.epoch

    def check(self, epoch_items: int) -> None:
        """Raise ValueError if numbers from a file cannot come from a run with such epochs."""
        counts = (self.epoch, self.updates, self.best_epoch, self.seconds)
        begun = 0 < self.items <= epoch_items and self.updates > 0
        if min(counts) < 0 or not (begun or self.items == self.updates == 0):
            raise ValueError(f"{PROGRESS}: a count is out of range")
        rows = [row.epoch for row in self.history]
        if len(rows) != self.epoch or rows != [*range(1, len(rows) + 1)]:
            raise ValueError(f"{PROGRESS}: the history is not that of {self.epoch} epochs")
        if self.best_epoch > self.epoch or bool(self.best_epoch) != bool(self.epoch):
            raise ValueError(f"{PROGRESS}: no epoch {self.best_epoch} can be the best")


def settings_of(accelerator: Accelerator, args: TrainArguments, fingerprint: str) -> dict[str, Any]:
    """Return all settings and data that determine the weights; resuming needs the same."""
    named = {f"--{name}": value for name, value in plain_values(args).items()}
    return {
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "device": accelerator.device.type,
        "data": fingerprint,
        **{name: value for name, value in named.items() if name[2:] not in MAY_CHANGE},
    }


def save_checkpoint(
    accelerator: Accelerator, args: TrainArguments, progress: Progress, settings: dict[str, Any]
) -> None:
    """Write the whole state, and delete the oldest checkpoints beyond `args.keep_checkpoints`.

    `accelerator` has prepared everything in the run; `settings` come from `settings_of`.
    """
    name = f"epoch-{progress.epoch:04d}"
    if progress.items:
        name += f"-items-{progress.items:010d}"
    with ExitStack() as stack:
        place = [""]
        if accelerator.is_main_process:
            folder = args.output / "checkpoints" / name
            place = [str(stack.enter_context(replaced_folder(folder)))]
        (staging,) = broadcast_object_list(place)
        accelerator.save_state(staging)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write_json(Path(staging, PROGRESS), progress.to_json())
            digests = {path.name: file_digest(path) for path in Path(staging).iterdir()}
            write_json(Path(staging, COMPLETE), {"settings": settings, "files": digests})
    if accelerator.is_main_process:
        for old in complete_checkpoints(args.output)[: -args.keep_checkpoints]:
            shutil.rmtree(old)


def complete_checkpoints(output: Path) -> list[Path]:
    """Return the folders of a run's complete checkpoints, oldest first."""
    return sorted(path.parent for path in output.glob(f"checkpoints/epoch-*/{COMPLETE}"))


def refuse_early(args: TrainArguments) -> None:
    """Raise RuntimeError for errors that would stop any run, before its data are read.

    They are: a wrong number of processes, Accelerate's gradient accumulation, an output folder
    in use.
    """
    processes = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).num_processes
    if args.expect_processes not in (0, processes):
        raise RuntimeError(f"expected {args.expect_processes} processes; {processes} are running")
    check_accumulation()
    if complete_checkpoints(args.output) and not (args.resume or args.resume_anyway):
        raise RuntimeError(
            f"{args.output} holds an earlier run: --resume continues it, a new --output starts anew"
        )


def check_accumulation() -> None:
    """Raise RuntimeError if Accelerate accumulates gradients: it would divide but not sum them."""
    name = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
    if os.environ.get(name, "1") != "1":
        raise RuntimeError(
            f"{name}={os.environ[name]}: gradients are not accumulated over steps; set "
            "--batch_size for the step, and --micro_batch_size for what memory holds"
        )


def resume(
    accelerator: Accelerator, args: TrainArguments, settings: dict[str, Any], epoch_items: int
) -> Progress | None:
    """Load the newest complete checkpoint if `args` asks for it; return its progress, or None.

    All processes first check that they see the same settings, data and checkpoint.

    Raises:
        RuntimeError: the processes disagree; the folder holds a run but resuming was not asked
            for; processes, settings or data differ and `args.resume_anyway` is not set; or the
            checkpoint is damaged.
    """
    found = complete_checkpoints(args.output)
    newest = found[-1] if found else None
    _require_same_everywhere(accelerator, {**settings, "newest checkpoint": newest and newest.name})
    if not (args.resume or args.resume_anyway):
        refuse_early(args)
        return None
    if accelerator.is_main_process:
        for folder in (args.output, args.output / "checkpoints"):
            sweep_leftovers(folder)
    if newest is None:
        logger.warning("%s holds no complete checkpoint; starting anew", args.output)
        return None
    with _damage_named(newest):
        written = _read_manifest(newest)
        differences = _differences(written, settings)
    if differences and not args.resume_anyway:
        raise RuntimeError(
            f"{newest} was written with {'; '.join(differences)}. --resume_anyway continues all "
            "the same; the result is then that of neither run"
        )
    for difference in differences:
        logger.warning("resumed although %s was written with %s", newest, difference)
    with _damage_named(newest):
        progress = _read_progress(newest / PROGRESS)
        progress.check(epoch_items)
        accelerator.load_state(str(newest))
        _check_random_states(newest, accelerator.process_index)
    logger.info("resumed from %s", newest)
    return progress


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return the settings of a checkpoint; raise ValueError if a file is missing, new or changed.

    Accelerate only logs a failure to load random states, so missing files must be detected
    here.
    """
    content = _read_json(folder / COMPLETE)
    settings, digests = content.get("settings"), content.get("files")
    if not isinstance(settings, dict) or not isinstance(digests, dict):
        raise ValueError(f"{COMPLETE} does not list the files; another version wrote it")
    processes = settings.get("processes")
    if not isinstance(processes, int) or not 0 < processes <= len(digests):
        raise ValueError(f"{COMPLETE}: {processes!r} processes")
    needed = {PROGRESS, "model.safetensors", "optimizer.bin", "scheduler.bin"}
    needed |= {f"random_states_{number}.pkl" for number in range(processes)}
    present = {path.name for path in folder.iterdir() if path.is_file()} - {COMPLETE}
    if missing := sorted((needed | digests.keys()) - (present & digests.keys())):
        raise ValueError(f"{missing[0]} is missing")
    if foreign := sorted(present - digests.keys()):
        raise ValueError(f"{foreign[0]} is not of this run")
    for name in sorted(present):
        if file_digest(folder / name) != digests[name]:
            raise ValueError(f"{name} is not as it was written")
    return settings


def _check_random_states(folder: Path, process: int) -> None:
    """Raise an error if Accelerate cannot load the random states of this process."""
    path = folder / f"random_states_{process}.pkl"
    if path.is_file() and not torch.equal(load(path)["torch_manual_seed"], torch.get_rng_state()):
        raise ValueError(f"{path.name} cannot be loaded")


def _read_progress(path: Path) -> Progress:
    content = _read_json(path)
    foreign = sorted(set(content) - {part.name for part in fields(Progress)})
    if foreign:
        raise ValueError(f"{path.name}: foreign keys {', '.join(foreign)}")
    return Progress.from_json(content, path.name)


def _read_json(path: Path) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{path.name}: {constant} is no number")

    content = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: must be an object")
    return content


@contextmanager
def _damage_named(checkpoint: Path) -> Iterator[None]:
    """Convert errors from reading a checkpoint into one line that names it."""
    try:
        yield
    # The error for a damaged file depends on the file and on the place of the damage.
    except (
        *(OSError, ValueError, KeyError, AttributeError, EOFError, RuntimeError, TypeError),
        *(IndexError, RecursionError, UnpicklingError, SafetensorError),
    ) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, UnpicklingError):  # torch's text advises to load it all the same
            why = "a file holds objects that are never loaded, or is cut off"
        raise RuntimeError(
            f"{checkpoint}: damaged ({why}); remove it to continue from the one before"
        ) from error


def _require_same_everywhere(accelerator: Accelerator, seen: dict[str, Any]) -> None:
    if accelerator.num_processes == 1:
        return
    others = gather_object([seen])
    odd = sorted({name for other in others for name in seen if other[name] != others[0][name]})
    if odd:
        raise RuntimeError(
            f"the processes do not see the same {', '.join(odd)}: all need the same files and one "
            "--output folder"
        )


def _differences(written: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Describe how the settings of the checkpoint differ from ours."""
    different = []
    for name in sorted({*written, *settings}):
        before, now = written.get(name), settings.get(name)
        if before != now and name == "data":
            different.append("other data or another extractor")
        elif before != now:
            different.append(f"{name} {before}, now {now}")
    return different
