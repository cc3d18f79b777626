"""What several commands ask of their words: numbers, rates, threads, a device."""

import argparse


def rate(text: str) -> float | str:
    """Frames a second, or `native`."""
    if text == "native":
        return text
    try:
        rate = float(text)
    except ValueError:
        rate = float("nan")
    if not 0 < rate < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number above 0, or native; got {text!r}")
    return rate


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1; got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """A time above 0 in seconds."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0; got {text!r}")
    return value


def stretch(text: str) -> tuple[float, float] | str:
    """START:END in seconds, or `auto`."""
    if text == "auto":
        return text
    try:
        start, end = map(float, text.split(":"))
    except ValueError:
        start = end = float("nan")
    if not 0 <= start < end < float("inf"):
        raise argparse.ArgumentTypeError(
            f"must be START:END in seconds, such as 0:2, or auto; got {text!r}"
        )
    return start, end


def set_threads(threads: int) -> None:
    """Compute threads of torch and of the detector."""
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def checkpoint(name: str | None) -> tuple[object, object]:
    """Model and processor of --model; those that ship for None."""
    if name is None:
        from mma_mrnnet.prediction import default_checkpoint

        return default_checkpoint()
    from mma_mrnnet.hub.checkpoints import load_checkpoint

    return load_checkpoint(name)


def device(name: str) -> object:
    """The torch device of that name.

    Raises:
        ValueError: it is not available here.
    """
    import torch

    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device {name}: not available here ({str(error).splitlines()[0]})"
        ) from error
    return device
