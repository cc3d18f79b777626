"""Complete states of a run on disk: written beside their place and renamed, found again, refused where they differ."""

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError

from mma_mrnnet.files import flush_to_disk
from mma_mrnnet.metrics import rounded
from mma_mrnnet.training.arguments import MAY_CHANGE, TrainArguments, plain_values

logger = logging.getLogger(__name__)

COMPLETE = "COMPLETE"
"""The file that a checkpoint gets last: it holds the run's settings. Without it the checkpoint was cut off."""


class Progress:
    """What a resumed run must know beside weights, optimiser and random states.

    Attributes:
        epoch: finished epochs.
        items: training items of the begun epoch that updates have used, over all processes.
        loss_total: sum of the begun epoch's losses ...
        updates: ... over so many updates.
        best_score: of the best epoch so far; -inf before the first, and where it is NaN.
        best_epoch: counted from 1; 0 before the first.
        history: a row an epoch.
        seconds: training and validation so far.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.items = 0
        self.loss_total = 0.0
        self.updates = 0
        self.best_score = -math.inf
        self.best_epoch = 0
        self.history: list[dict] = []
        self.seconds = 0.0

    def state_dict(self) -> dict:
        """Plain numbers and lists, as Accelerate stores them."""
        return dict(vars(self))

    def load_state_dict(self, state: dict) -> None:
        """Takes the numbers back."""
        vars(self).update(state)

    def end_epoch(self, score: float, scores: dict[str, float]) -> None:
        """Count the epoch that was just trained and validated."""
        self.epoch += 1
        row = {"epoch": self.epoch, "train_loss": self.loss_total / self.updates, "score": score}
        self.history.append(rounded({**row, "seconds": self.seconds, "scores": scores}))
        self.items, self.loss_total, self.updates = 0, 0.0, 0
        if (
            score > self.best_score or self.best_epoch == 0
        ):  # NaN is never better, and any number is than NaN
            self.best_score = -math.inf if math.isnan(score) else score
            self.best_epoch = self.epoch


def write_text(path: Path, text: str) -> None:
    """`text` written beside its target and renamed."""
    staging = path.with_name(f".{path.name}.tmp")
    staging.write_text(text, encoding="utf-8")
    staging.replace(path)


def write_json(path: Path, content: dict) -> None:
    """`content`, rounded, as strict JSON."""
    write_text(path, json.dumps(rounded(content), indent=1, allow_nan=False) + "\n")


def settings_of(accelerator: Accelerator, args: TrainArguments, fingerprint: str) -> dict:
    """All that decides on a run's weights beside its code: what a resumed run must have in common with it.

    Args:
        accelerator: of the run.
        args: the run's settings.
        fingerprint: of the stage.
    """
    return {
        "processes": accelerator.num_processes,
        "precision": accelerator.mixed_precision,
        "device": accelerator.device.type,
        "data": fingerprint,
        **{
            f"--{name}": value
            for name, value in plain_values(args).items()
            if name not in MAY_CHANGE
        },
    }


def save_checkpoint(
    accelerator: Accelerator, args: TrainArguments, progress: Progress, settings: dict
) -> None:
    """Writes the whole state; older ones beyond `args.keep_checkpoints` go.

    Args:
        accelerator: with everything of the run prepared and registered.
        args: the run's settings.
        progress: names the checkpoint.
        settings: from `settings_of`.
    """
    folder = args.output / "checkpoints"
    name = f"epoch-{progress.epoch:04d}" + (
        f"-items-{progress.items:010d}" if progress.items else ""
    )
    staging, final = folder / f".{name}.tmp", folder / name
    if accelerator.is_main_process:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(staging))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for path in staging.iterdir():
            flush_to_disk(
                path
            )  # a machine that loses power must not keep the marker and lose what it vouches for
        (staging / COMPLETE).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        flush_to_disk(staging / COMPLETE)
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)
        for old in complete_checkpoints(args.output)[: -args.keep_checkpoints]:
            shutil.rmtree(old)


def complete_checkpoints(output: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path.parent for path in output.glob(f"checkpoints/epoch-*/{COMPLETE}"))


def refuse_early(args: TrainArguments) -> None:
    """Raises RuntimeError for what would stop the run in any case, before hours go into reading its data."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if args.expect_processes not in (0, processes):
        raise RuntimeError(f"expected {args.expect_processes} processes; {processes} are running")
    if complete_checkpoints(args.output) and not (args.resume or args.resume_anyway):
        raise RuntimeError(
            f"{args.output} holds an earlier run: --resume goes on with it, a new --output starts anew"
        )


def resume(accelerator: Accelerator, args: TrainArguments, settings: dict) -> bool:
    """Takes up the newest complete checkpoint where asked to; otherwise refuses to mix two runs in one folder.

    All processes decide alike: they first make sure that they see the same settings, data and checkpoint.

    Returns:
        Whether there was one.

    Raises:
        RuntimeError: the processes do not see the same; the folder holds a run that nobody asked to resume, or one with
            other processes, settings or data, and `args.resume_anyway` is not set; or the checkpoint is damaged.
    """
    found = complete_checkpoints(args.output)
    newest = found[-1] if found else None
    _require_same_everywhere(accelerator, {**settings, "newest checkpoint": newest and newest.name})
    if not (args.resume or args.resume_anyway):
        refuse_early(args)
        return False
    if accelerator.is_main_process:
        _remove_half_written(args.output)
    if newest is None:
        logger.warning("%s holds no complete checkpoint; starting anew", args.output)
        return False
    with _damage_named(newest):
        differences = _differences(
            json.loads((newest / COMPLETE).read_text(encoding="utf-8")), settings
        )
    if differences and not args.resume_anyway:
        raise RuntimeError(
            f"{newest} was written with {'; '.join(differences)}. --resume_anyway goes on all the same; the result "
            "is then that of neither run"
        )
    for difference in differences:
        logger.warning("resumed although %s was written with %s", newest, difference)
    with _damage_named(newest):
        accelerator.load_state(str(newest))
    logger.info("resumed from %s", newest)
    return True


@contextmanager
def _damage_named(checkpoint: Path) -> Iterator[None]:
    """Errors of reading a checkpoint as one line that names it."""
    try:
        yield
    # What is raised for a damaged file, or another network's, depends on which file it is, and where.
    except (
        *(OSError, ValueError, KeyError, AttributeError, EOFError, RuntimeError),
        *(UnpicklingError, SafetensorError),
    ) as error:
        why = str(error).strip().splitlines()[0]
        raise RuntimeError(
            f"{checkpoint}: damaged ({why}); remove it to go on from the one before"
        ) from error


def _require_same_everywhere(accelerator: Accelerator, seen: dict) -> None:
    if accelerator.num_processes == 1:
        return
    others = gather_object([seen])
    odd = sorted({name for other in others for name in seen if other[name] != others[0][name]})
    if odd:
        raise RuntimeError(
            f"the processes do not see the same {', '.join(odd)}: all need the same files and one --output folder"
        )


def _remove_half_written(output: Path) -> None:
    """What a killed run left of a write that it could not end; what it was to replace is still there or made again."""
    for pattern in (".*.tmp", ".*.old", "checkpoints/.*.tmp"):
        for path in output.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _differences(written: dict, settings: dict) -> list[str]:
    """What the checkpoint's run did otherwise, in words."""
    pairs = [
        (name, written.get(name), settings.get(name)) for name in sorted({*written, *settings})
    ]
    return [
        "other data or another extractor" if name == "data" else f"{name} {before}, now {after}"
        for name, before, after in pairs
        if before != after
    ]
