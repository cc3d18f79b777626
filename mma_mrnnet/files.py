"""Atomic writes of files and folders, digests, and checks of output paths.

Content is written under a temporary name in the same directory and then renamed. Readers never
see half a file, and a failed or killed run leaves the old version. Temporary names start with
`.mma-tmp-`; only such names are ever removed.
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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]  # mypy expects a module

MARK = ".mma-tmp-"
DAY_S = 86_400.0
_NAME = re.compile(re.escape(MARK) + r"(?P<target>[0-9a-f]{12})-(?P<process>\d+)-[0-9a-f]{8}")


@contextmanager
def replaced_file(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that replaces `target` if the block succeeds, else is removed.

    The temporary path keeps the suffix. A symbolic link stays: the file behind it is replaced. A
    `target` that is no regular file (a named pipe, `/dev/stdout`) is yielded itself. Raises OSError
    if the directory is missing or not writable.
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
    """Yield a new folder that replaces `target` if the block succeeds, else is removed.

    Parents are created. A symbolic link stays: the folder behind it is replaced.
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


@contextmanager
def locked(path: Path, otherwise: str) -> Iterator[None]:
    """Lock a file or folder that exists, until the block or the process ends.

    There is no lock on Windows and some network file systems; `filelock` would leave a file.
    Raises ValueError, with `otherwise`, if another process has locked it.
    """
    if fcntl is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_gone = not path.exists() or not os.path.samestat(os.fstat(handle), path.stat())
        except BlockingIOError as error:
            raise ValueError(f"{path}: {otherwise}") from error
        except OSError:  # a network file system without locks
            is_gone = False
        if is_gone:  # the other process has just ended its work, and removed the file
            raise ValueError(f"{path}: {otherwise}")
        yield
    finally:
        os.close(handle)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replaced_file(path) as staging:
        staging.write_text(text, encoding="utf-8")


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write strict JSON atomically.

    Raises ValueError for NaN and infinity, TypeError for values that are not JSON-serialisable.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def flush_to_disk(path: Path) -> None:
    """Fsync a file, so that a rename cannot reach the disk before the content."""
    with path.open("r+b") as file:  # Windows needs it open for writing
        os.fsync(file.fileno())


def sweep_leftovers(folder: Path, target: Path | None = None) -> None:
    """Remove temporary files and folders of killed runs in `folder`, not below it.

    A leftover is removed if its process has ended, or after a day. `target` restricts this to
    leftovers of one target.
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
                with contextlib.suppress(OSError):  # another process may have removed it
                    path.unlink()


def check_can_write_file(path: str | os.PathLike[str]) -> None:
    """Raise ValueError if no file can be written at `path`. Called before any work."""
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
    """Raise ValueError unless `path` is missing or an empty folder, but not the current one."""
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path}: exists and is not an empty folder; nothing was written")
    if path.resolve() == Path.cwd():  # else the shell's folder would vanish
        raise ValueError(f"{path}: is the current folder; name a folder inside it")


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_digest(*values: object) -> str:
    """Return the SHA-256 of values as JSON with sorted keys, 64 hexadecimal digits.

    Objects without a JSON form are converted by `str`.
    """
    content = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _staging(target: Path) -> Path:
    """Return a new temporary path beside `target`; remove its leftovers first."""
    sweep_leftovers(target.parent, target)
    suffix = target.suffix if len(target.suffix) <= 16 else ""
    name = f"{MARK}{_digest_of_name(target)}-{os.getpid()}-{uuid.uuid4().hex[:8]}{suffix}"
    return target.with_name(name)


def _digest_of_name(target: Path) -> str:
    # A digest, since the name may already have the maximum of 255 bytes.
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]


def _is_running(process: int) -> bool:
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # it exists, but belongs to another user
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    """Return whether a process has ended but was not waited for (Linux only)."""
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
