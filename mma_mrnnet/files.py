"""Files and folders that appear whole or not at all, digests, and "may I write here".

A file or folder is written under a temporary name in the same directory and then renamed, so that a
reader never sees half of it and a failed or killed run leaves the earlier version in place.
Temporary names start with `.mma-tmp-`; only names with that mark are ever swept.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = ".mma-tmp-"
DAY_S = 86_400.0
_NAME = re.compile(re.escape(MARK) + r"(?P<target>[0-9a-f]{12})-(?P<process>\d+)-[0-9a-f]{8}")


@contextmanager
def replaced_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that replaces `target` if the block succeeds, and is removed if it fails.

    The temporary path has the target's suffix. A symbolic link is followed: the file behind it is
    replaced and the link stays. A target that exists and is no regular file (a named pipe,
    `/dev/stdout`) is yielded itself and written in place.

    Raises:
        OSError: the directory does not exist or cannot be written to.
    """
    target = Path(target).resolve()
    if target.exists() and not target.is_file():
        yield target
        return
    staging = _staging(target)
    try:
        yield staging
        flush_to_disk(staging)
        if target.exists():
            shutil.copymode(target, staging)
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)


@contextmanager
def replaced_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a fresh folder that replaces `target` if the block succeeds, and is removed if it fails.

    Parent directories are created. A symbolic link is followed: the folder behind it is replaced and
    the link stays.
    """
    target = Path(target).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = _staging(target)
    staging.mkdir()
    try:
        yield staging
        for path in staging.rglob("*"):
            if path.is_file():
                flush_to_disk(path)
        if target.exists():
            old = _staging(target)
            target.rename(old)
            staging.rename(target)
            shutil.rmtree(old)
        else:
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text to a file, atomically."""
    with replaced_file(path) as staging:
        staging.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write a value as strict JSON (no NaN or infinity), atomically.

    Raises:
        ValueError: the value holds NaN or infinity.
        TypeError: the value holds something that JSON has no form for.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def flush_to_disk(path: Path) -> None:
    """Fsync a file, so that a rename cannot reach the disk before the file's contents."""
    with path.open("r+b") as file:  # Windows flushes only what is open for writing
        os.fsync(file.fileno())


def sweep_leftovers(folder: Path, target: Path | None = None) -> None:
    """Remove temporary files and folders that killed runs left in `folder`.

    Only names with our mark are touched, and only if the process that wrote them is gone or they are
    more than a day old.

    Args:
        folder: is searched, but not the folders below it.
        target: remove only leftovers of this target; None removes those of any.
    """
    wanted = None if target is None else _digest_of_name(target.resolve())
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            match = _NAME.match(path.name)
            if match is None or wanted not in (None, match["target"]):
                continue
            if _is_running(int(match["process"])) and _age_s(path) < DAY_S:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):  # another process was quicker
                    path.unlink()


def check_can_write_file(path: str | os.PathLike[str]) -> None:
    """Check that a file can be written at `path`, before any work is spent on its content.

    Raises:
        ValueError: the directory does not exist or takes no files, or `path` is a directory.
    """
    path = Path(path)
    parent = path.absolute().parent
    if not parent.is_dir():
        raise ValueError(f"{path}: the folder {parent} does not exist")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, not a file to write")
    if path.exists() and not path.is_file():
        return
    try:
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror or error}") from error


def check_new_folder(path: str | os.PathLike[str]) -> None:
    """Check that `path` can become a new folder: it does not exist, or is an empty folder.

    Raises:
        ValueError: `path` is a file, a folder that is not empty, or the current folder.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path}: exists and is not an empty folder; nothing was written")
    if path.resolve() == Path.cwd():  # replacing it would leave the shell in a folder that is gone
        raise ValueError(f"{path}: is the current folder; name a folder inside it")


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file's content, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(*values: object) -> str:
    """Return the SHA-256 of values as JSON with sorted keys, as 64 hexadecimal digits.

    What JSON has no form for stands as its `str`.
    """
    content = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _staging(target: Path) -> Path:
    """Return a new temporary path beside `target`; leftovers of the same target are swept first."""
    sweep_leftovers(target.parent, target)
    suffix = target.suffix if len(target.suffix) <= 16 else ""
    name = f"{MARK}{_digest_of_name(target)}-{os.getpid()}-{uuid.uuid4().hex[:8]}{suffix}"
    return target.with_name(name)


def _digest_of_name(target: Path) -> str:
    # A digest, since the name itself may be 255 bytes long already.
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # there, but not ours to signal
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    """Return whether a process has ended but still waits for its parent to notice (Linux only)."""
    try:
        status = Path(f"/proc/{process}/stat").read_text("utf-8", errors="replace")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[:1] == ["Z"]


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0
