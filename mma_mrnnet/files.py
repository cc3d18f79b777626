"""Folders that are there as a whole or not at all: written beside their place, and renamed."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A fresh folder beside `target` that takes its place when the block ends well, and is removed when it fails.

    Where `target` is a link to a folder, that folder is replaced, and the link stays.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)  # a killed run may have left one
    staging.mkdir()
    try:
        yield staging
        for path in staging.iterdir():
            if path.is_file():
                to_disk(path)
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


def to_disk(path: Path) -> None:
    """Has the system write out a file now: a rename must not come before what it vouches for."""
    with path.open("r+b") as file:  # Windows writes out what may be written to alone
        os.fsync(file.fileno())
