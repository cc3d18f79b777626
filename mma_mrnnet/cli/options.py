"""Options that several commands share, and the parsers of their values."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from mma_mrnnet.prediction.checkpoint import Engine

REPORT_HELP = "A page (.html, which needs no other file) or a picture (.png, needs the demo extra)."


@dataclass(frozen=True)
class FrameRate:
    """Value of `--fps`: frames per second; None (`native`) means every frame."""

    fps: float | None

    def __str__(self) -> str:
        return "native" if self.fps is None else f"{self.fps:g}"


@dataclass(frozen=True)
class Stretch:
    """Value of `--neutral`: start and end in seconds, or `auto`."""

    seconds: tuple[float, float] | str


def parse_rate(text: str) -> FrameRate:
    """Parse frames per second, or `native`."""
    if str(text) == "native":
        return FrameRate(None)
    rate = _number(str(text))
    if not 0 < rate < float("inf"):
        raise typer.BadParameter(f"must be a number above 0, or native; got {str(text)!r}")
    return FrameRate(rate)


def parse_table_rate(text: str) -> float:
    """Parse rows per second."""
    rate = _number(str(text))
    if not 0 < rate < float("inf"):
        raise typer.BadParameter(f"must be a number above 0; got {str(text)!r}")
    return rate


def parse_count(text: str) -> int:
    """Parse a whole number >= 1."""
    if not str(text).isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"must be a whole number of at least 1; got {str(text)!r}")
    return int(text)


def parse_seconds(text: str) -> float:
    """Parse a number of seconds > 0."""
    seconds = _number(str(text))
    if not 0 < seconds < float("inf"):
        raise typer.BadParameter(f"must be a number of seconds above 0; got {str(text)!r}")
    return seconds


def parse_stretch(text: str) -> Stretch:
    """Parse START:END in seconds, or `auto`."""
    if text == "auto":
        return Stretch(text)
    start, colon, end = text.partition(":")
    stretch = _number(start), _number(end)
    if not colon or not 0 <= stretch[0] < stretch[1] < float("inf"):
        raise typer.BadParameter(
            f"must be START:END in seconds, such as 0:2, or auto; got {text!r}"
        )
    return Stretch(stretch)


def _number(text: str) -> float:
    """Parse a number; NaN if it is none."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def option(metavar: str, text: str, parser: Callable[[str], Any] | None = None) -> Any:
    """Return a typer option; `metavar` is its value's name in the help."""
    return typer.Option(metavar=metavar, help=text, parser=parser)


Model = Annotated[
    str | None,
    option("NAME", "A stage-2 checkpoint: folder or repository. Default: the one in the package."),
]
Revision = Annotated[
    str | None,
    option("BRANCH", "Branch, tag or commit of a --model on the Hub. Default: main."),
]
EngineName = Literal["onnx", "torch"]
EngineOption = Annotated[
    EngineName | None,
    option(
        "NAME",
        "onnx (onnxruntime) or torch (PyTorch). Default: onnx if the checkpoint carries ONNX "
        "files, as the one in the package does, and no --device is given.",
    ),
]
Device = Annotated[
    str | None, option("NAME", "A torch device, such as cuda. Default: the CPU, by --engine.")
]
Threads = Annotated[int, option("N", "Compute threads.", parse_count)]
Report = Annotated[Path | None, option("FILE", REPORT_HELP)]
Neutral = Annotated[
    Stretch | None,
    option(
        "START:END",
        "Seconds in which the person's face rests, or `auto` for the calmest stretch. What the "
        "face shows there is taken out of the frames' affect. Not shown to improve anything. "
        "Default: off.",
        parse_stretch,
    ),
]


QUIET = ("-q", "--quiet")
QUIET_HELP = "Show results, warnings and errors only."
_is_quiet = False


def set_quiet(is_quiet: bool) -> None:
    """Drop notes, progress bars and what was written, or show them again."""
    global _is_quiet
    _is_quiet = is_quiet
    if is_quiet:
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported


def say(text: str) -> None:
    """Print a line to stderr; see `printable`. Warnings and errors start with `mma-mrnnet`."""
    if not _is_quiet or text.startswith("mma-mrnnet"):
        print(printable(text), file=sys.stderr)


EXTRAS = {
    **dict.fromkeys(("accelerate", "datasets", "evaluate", "pyarrow", "scipy", "sklearn"), "train"),
    **dict.fromkeys(("matplotlib", "skimage"), "demo"),
    **dict.fromkeys(("onnx", "onnxscript"), "onnx"),
    **{"gradio": "space", "ray": "ray"},
}
"""The extra of each module that the base installation does not have."""


def explain_missing(error: ImportError) -> str:
    """Say which extra brings a missing module; raise the error again if none does."""
    module = (error.name or "").partition(".")[0]
    if module not in EXTRAS:
        raise error
    return f"{module} is not installed: pip install 'mma-mrnnet[{EXTRAS[module]}]'"


def printable(text: str) -> str:
    r"""Escape control characters, such as ESC (`\x1b`), and characters that cannot be encoded."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def silence_transformers() -> None:
    """Silence transformers and its progress bars; imports it."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def open_model(
    name: str | None,
    revision: str | None,
    engine: EngineName | None = None,
    device: str | None = None,
    threads: int = 1,
) -> "Engine":
    """Open the checkpoint of `--model` (None: the bundled one) with its compute threads.

    Raises ValueError for a revision without a name, a checkpoint that cannot be opened, or a
    device that is not available.
    """
    if name is None and revision is not None:
        raise ValueError("--revision needs --model, a repository on the Hub")
    import cv2

    from mma_mrnnet.prediction.checkpoint import find_onnx_folder, open_stage_2

    cv2.setNumThreads(threads)
    # A folder, so that nothing is downloaded twice.
    folder = find_onnx_folder(name, engine=engine, revision=revision or "main", device=device)
    if folder is not None:
        return open_stage_2(folder, engine="onnx", threads=threads)
    silence_transformers()
    import torch

    torch.set_num_threads(threads)
    return open_stage_2(name, engine="torch", revision=revision or "main", device=device)
