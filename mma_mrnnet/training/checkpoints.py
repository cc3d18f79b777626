"""Complete states of a run on disk: written beside their place and renamed, found again, refused where they differ."""

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator

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
        if score > self.best_score or self.best_epoch == 0:  # NaN is never better, and any number is than NaN
            self.best_score = -math.inf if math.isnan(score) else score
            self.best_epoch = self.epoch


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A fresh folder beside `target` that takes its place when the block ends well, and is removed when it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)  # a killed run may have left one
    staging.mkdir()
    try:
        yield staging
        if target.exists():
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
            staging.rename(target)
            shutil.rmtree(old)
        else:
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """`text` written beside its target and renamed."""
    staging = path.with_name(f".{path.name}.tmp")
    staging.write_text(text, encoding="utf-8")
    staging.replace(path)


def write_json(path: Path, content: dict) -> None:
    """`content`, rounded, as strict JSON."""
    write_text(path, json.dumps(rounded(content), indent=1, allow_nan=False) + "\n")


def save_checkpoint(accelerator: Accelerator, args: TrainArguments, progress: Progress, data: dict) -> None:
    """Writes the whole state; older ones beyond `args.keep_checkpoints` go.

    Args:
        accelerator: with everything of the run prepared and registered.
        args: the run's settings.
        progress: names the checkpoint.
        data: the stage's description of its data.
    """
    folder = args.output / "checkpoints"
    name = f"epoch-{progress.epoch:04d}" + (f"-items-{progress.items:010d}" if progress.items else "")
    staging, final = folder / f".{name}.tmp", folder / name
    if accelerator.is_main_process:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(staging))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        settings = {"processes": accelerator.num_processes, "arguments": plain_values(args), "data": data}
        for path in staging.iterdir():
            _to_disk(path)  # a machine that loses power must not keep the marker and lose what it vouches for
        (staging / COMPLETE).write_text(json.dumps(rounded(settings), indent=1) + "\n", encoding="utf-8")
        _to_disk(staging / COMPLETE)
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)
        for old in complete_checkpoints(args.output)[: -args.keep_checkpoints]:
            shutil.rmtree(old)


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def complete_checkpoints(output: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path.parent for path in output.glob(f"checkpoints/epoch-*/{COMPLETE}"))


def resume(accelerator: Accelerator, args: TrainArguments, data: dict) -> None:
    """Takes up the newest complete checkpoint where asked to; otherwise refuses to mix two runs in one folder.

    Raises:
        RuntimeError: the folder holds a run that nobody asked to resume, or one with other processes, settings or
            data, and `args.resume_anyway` is not set.
    """
    found = complete_checkpoints(args.output)
    if found and not (args.resume or args.resume_anyway):
        raise RuntimeError(f"{args.output} holds an earlier run: --resume goes on with it, a new --output starts anew")
    if not (args.resume or args.resume_anyway):
        return
    if accelerator.is_main_process:
        _remove_half_written(args.output)
    if not found:
        logger.warning("%s holds no complete checkpoint; starting anew", args.output)
        return
    differences = _differences(found[-1], args, accelerator.num_processes, data)
    if differences and not args.resume_anyway:
        raise RuntimeError(
            f"{found[-1]} was written with {'; '.join(differences)}. --resume_anyway goes on all the same; the result "
            "is then that of neither run"
        )
    for difference in differences:
        logger.warning("resumed although %s was written with %s", found[-1], difference)
    accelerator.load_state(str(found[-1]))
    logger.info("resumed from %s", found[-1])


def _remove_half_written(output: Path) -> None:
    """What a killed run left of a write that it could not end; what it was to replace is still there or made again."""
    for pattern in (".*.tmp", ".*.old", "checkpoints/.*.tmp"):
        for path in output.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _differences(checkpoint: Path, args: TrainArguments, processes: int, data: dict) -> list[str]:
    """What the checkpoint's run did otherwise, in words."""
    written = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))
    pairs = {"processes": (written["processes"], processes)}
    now = plain_values(args)
    for name in now.keys() - MAY_CHANGE:
        pairs[f"--{name}"] = (written["arguments"].get(name), now[name])
    pairs["data"] = (written["data"], rounded(data))
    return [f"{name} {before}, now {after}" for name, (before, after) in sorted(pairs.items()) if before != after]
