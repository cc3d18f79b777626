"""Turn what a user hands in as a video (path, URL, bytes, file object, data-set entry) into a file."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from huggingface_hub.utils import httpx

from mma_mrnnet.video.reading import VIDEO_SUFFIXES, VideoError

FETCH_TIMEOUT_S = 300.0
MOST_FETCHED_BYTES = 2 * 2**30
_STALLED_AFTER_S = 20.0  # a connection is given up after this long without a byte (our choice)
_PIECE = 2**20

_ACCEPTED = (
    "accepted are a path, an http(s) URL, a video file's bytes, a binary file object, or a data "
    'set\'s entry with "path" and "bytes" (datasets.Video(decode=False))'
)


@dataclass(frozen=True)
class LocalVideo:
    """A video as a file.

    Attributes:
        path: the file; a temporary one is deleted when the context ends.
        name: its name for messages: the path as given, the URL without user, password and query, or
            the file object's name.
    """

    path: Path
    name: str


@contextmanager
def local_video(
    video: Any, *, timeout: float = FETCH_TIMEOUT_S, max_bytes: int = MOST_FETCHED_BYTES
) -> Iterator[LocalVideo]:
    """Open a context in which the video is a file on disk.

    Anything but a path is written to a temporary folder, which is deleted when the context ends. A
    `VideoError` raised inside names what was handed in, not the temporary file. Every URL is fetched,
    also those of the machine's own network: check addresses that come from strangers first.

    Args:
        video: a path; an http or https URL; a video file's bytes; a binary file object, read from its
            current position; or a mapping with `path` and `bytes`, as `datasets.Video(decode=False)`
            gives it (bytes are preferred).
        timeout: seconds that fetching a URL may take in all.
        max_bytes: the most that is read of a URL or a file object.

    Raises:
        VideoError: something else was handed in, or the URL cannot be fetched, takes too long or is
            too large.
    """
    if isinstance(video, Mapping):
        video, name = _split_entry(video)
    else:
        name = _name_of(video)
    if isinstance(video, str | os.PathLike) and not _is_url(video):
        yield LocalVideo(Path(video), name)
        return
    with tempfile.TemporaryDirectory(prefix="mma-mrnnet-") as folder:
        suffix = Path(urlsplit(name).path if _is_url(video) else name).suffix.lower()
        path = Path(folder) / f"video{suffix if suffix in VIDEO_SUFFIXES else ''}"
        with path.open("wb") as file:
            if isinstance(video, str):
                _fetch(video, name, file, timeout, max_bytes)
            elif isinstance(video, bytes | bytearray | memoryview):
                file.write(video)
            else:
                _copy(video, name, file, max_bytes)
        try:
            yield LocalVideo(path, name)
        except VideoError as error:
            raise VideoError(str(error).replace(str(path), name)) from error


def _is_url(video: Any) -> bool:
    return isinstance(video, str) and video.lower().startswith(("http://", "https://"))


def _name_of(video: Any) -> str:
    """Return a video's name for messages; raise VideoError if it cannot be read as one."""
    if _is_url(video):
        return _strip_secrets(video)
    if isinstance(video, str | os.PathLike):
        path = os.fspath(video)
        if not isinstance(path, str) or not path:
            raise VideoError(f"a video's path is empty or not text: {path!r}; {_ACCEPTED}")
        if "://" in path:
            raise VideoError(f"{path}: only http and https URLs are fetched; {_ACCEPTED}")
        return path
    if isinstance(video, bytes | bytearray | memoryview):
        return f"video of {memoryview(video).nbytes:,} bytes"
    if hasattr(video, "read"):
        name = getattr(video, "name", None)
        return name if isinstance(name, str) and name else "file object"
    kind = type(video)
    hint = ""
    if hasattr(video, "column_names"):
        hint = "; of a whole data set give one column, such as dataset['video']"
    elif hasattr(video, "shape") or "Decoder" in kind.__name__:
        hint = "; decoded videos and arrays of frames are not"
    raise VideoError(
        f"a video cannot be read from {kind.__module__}.{kind.__qualname__}; {_ACCEPTED}{hint}"
    )


def _split_entry(entry: Mapping) -> tuple[Any, str]:
    """Return the video and the name of a data set's entry."""
    path, content = entry.get("path"), entry.get("bytes")
    if content is not None:
        name = _name_of(content)  # raises if it cannot be read
        if isinstance(content, str | os.PathLike):
            raise VideoError(f'"bytes" holds {type(content).__name__}, not bytes; {_ACCEPTED}')
        return content, _name_of(path) if path else name
    if path is None:
        keys = ", ".join(sorted(map(str, entry))) or "none"
        raise VideoError(f'a mapping with no "path" and no "bytes" (keys: {keys}); {_ACCEPTED}')
    return path, _name_of(path)


def _strip_secrets(url: str) -> str:
    """Return the URL without user, password and query, which may hold a signature."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise VideoError(f"{url}: not a URL ({error})") from error
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


def _fetch(url: str, name: str, file: BinaryIO, timeout: float, max_bytes: int) -> None:
    deadline, received = time.monotonic() + timeout, 0
    stalled_s = min(timeout, _STALLED_AFTER_S)
    try:
        with httpx.stream("GET", url, follow_redirects=True, timeout=stalled_s) as response:
            if response.is_error:
                answer = f"{response.status_code} {response.reason_phrase}".strip()
                raise VideoError(f"{name}: the server answered {answer}")
            announced = response.headers.get("content-length", "")
            if announced.isdecimal() and int(announced) > max_bytes:
                raise _too_large(name, max_bytes, f", {int(announced):,} are announced")
            for piece in response.iter_bytes():
                received += len(piece)
                if received > max_bytes:
                    raise _too_large(name, max_bytes)
                if time.monotonic() > deadline:
                    raise VideoError(
                        f"{name}: not fetched within {timeout:g} s ({received:,} bytes came); give "
                        "a longer timeout"
                    )
                file.write(piece)
    # UnicodeError: a host name that is too long, or a URL with surrogates.
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        reason = str(error)
        if isinstance(error, httpx.TimeoutException):
            reason = reason or "no answer in time"
        raise VideoError(f"{name}: cannot be fetched: {type(error).__name__}: {reason}") from error


def _copy(source: BinaryIO, name: str, file: BinaryIO, max_bytes: int) -> None:
    received = 0
    while piece := _read_piece(source, name):
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise VideoError(
                f'{name}: gives {type(piece).__name__}, not bytes; open a video file with "rb"'
            )
        received += len(piece)
        if received > max_bytes:
            raise _too_large(name, max_bytes)
        file.write(piece)


def _read_piece(source: BinaryIO, name: str) -> Any:
    try:
        return source.read(_PIECE)
    except UnicodeDecodeError as error:
        raise VideoError(f'{name}: is open as text; open a video file with "rb"') from error
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise VideoError(f"{name}: cannot be read: {error}") from error


def _too_large(name: str, max_bytes: int, more: str = "") -> VideoError:
    return VideoError(f"{name}: larger than {max_bytes:,} bytes{more}; give a larger max_bytes")
