"""Open anything that a user may pass as a video or photo.

Paths, URLs, bytes, file objects and data-set entries become a file on disk; arrays, tensors and
lists of pictures are read from memory.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

import numpy as np
from huggingface_hub.utils import httpx
from PIL import Image

from mma_mrnnet.video.pictures import read_picture
from mma_mrnnet.video.reading import (
    MOST_PIXELS,
    VIDEO_SUFFIXES,
    FrameClock,
    VideoError,
    VideoFrame,
    VideoReader,
    check_rate,
    read_frames,
)

FETCH_TIMEOUT_S = 300.0
MOST_FETCHED_BYTES = 2 * 2**30
_STALLED_AFTER_S = 20.0  # without a byte, the connection is closed (our choice)
_PIECE = 2**20
_LONGEST_PATH = 4096  # characters; a longer "path" is file content

_FILES = (
    "a path, a URL (http, https, file, hf, s3, zip or what else fsspec opens), a file's bytes, "
    "a binary file object, or a data set's entry"
)
_ACCEPTED = {
    "video": f"accepted are {_FILES}, decoded or not; with fps=, frames as an array or tensor "
    "(T, H, W, 3) uint8 or as a list of PIL images",
    "photo": f"accepted are {_FILES}, a PIL image, or an array (H, W, 3) uint8 RGB",
}


@dataclass(frozen=True)
class LocalFile:
    """A file on disk, and a name for messages without the secrets of a URL.

    A temporary file is deleted when its context ends.
    """

    path: Path
    name: str


@dataclass(frozen=True, eq=False)
class OpenVideo:
    """A readable video: a file, or frames in memory.

    `frames` are (T, H, W, 3) uint8 RGB, or T PIL images, at `fps` frames per second.
    """

    name: str
    path: Path | None = None
    frames: Any = None
    fps: float | None = None
    max_pixels: int = MOST_PIXELS

    @property
    def in_memory(self) -> bool:
        """Whether the frames are in memory, at the rate that the user gave."""
        return self.path is None

    def read(self, *rates: float | None) -> "VideoReader | FrameReader":
        """Return the frames that are due at any of the rates, as `read_frames` does."""
        if self.path is not None:
            return read_frames(self.path, *rates, max_pixels=self.max_pixels)
        assert self.fps is not None
        return FrameReader(self.frames, self.fps, *rates)


class FrameReader:
    """Frames in memory, with the interface of `VideoReader`; `warning` is always None."""

    def __init__(self, frames: Any, fps: float, *rates: float | None) -> None:
        self._frames, self._fps, self._rates = frames, fps, rates or (None,)
        self.duration_s = self.announced_s = len(frames) / fps
        self.warning: str | None = None

    def __iter__(self) -> Iterator[VideoFrame]:
        clocks = [FrameClock(rate) for rate in self._rates]
        for index in range(len(self._frames)):
            time_s = index / self._fps
            due = tuple(clock.keeps(time_s) for clock in clocks)
            if any(due):
                yield VideoFrame(_as_rgb(self._frames[index]), time_s, index, due)


@contextmanager
def open_video(
    video: Any,
    fps: float | None = None,
    *,
    timeout: float = FETCH_TIMEOUT_S,
    max_bytes: int = MOST_FETCHED_BYTES,
    max_pixels: int = MOST_PIXELS,
) -> Iterator[OpenVideo]:
    """Open a context in which the video can be read.

    `video` is any source of `local_file`; (T, H, W, 3) or (T, 3, H, W) uint8 RGB; a list of PIL
    images or (H, W, 3) uint8 arrays; or an `OpenVideo`. Frames in memory need `fps`, others ignore
    it. See `local_file` for the limits.

    Raises:
        VideoError: another type, a failed, too slow or too large fetch, or frames in memory of
            another shape or without `fps`.
        ValueError: `fps` is not a finite number > 0.
    """
    if isinstance(video, OpenVideo):
        yield video
        return
    frames = _frames_in_memory(video)
    if frames is None:
        with local_file(video, timeout=timeout, max_bytes=max_bytes) as local:
            yield OpenVideo(local.name, local.path, max_pixels=max_pixels)
        return
    if fps is None:
        raise VideoError("frames in memory have no rate: give fps=, their frames per second")
    check_rate(fps)
    yield OpenVideo(f"video of {len(frames)} frames", frames=frames, fps=fps)


@contextmanager
def local_file(
    source: Any,
    *,
    kind: str = "video",
    timeout: float = FETCH_TIMEOUT_S,
    max_bytes: int = MOST_FETCHED_BYTES,
) -> Iterator[LocalFile]:
    """Open a context in which the source is a file on disk.

    All sources but paths are written to a temporary folder, which is deleted at the end. A
    `VideoError` inside names the source, not the temporary file. Every URL is fetched, also from
    the local network: check untrusted addresses first.

    `source` is a path (`~` is expanded); a URL of http, https, file, or a protocol of fsspec such
    as `hf://` and `zip://`; bytes; a binary file object, read from its position; a mapping with
    `path` and `bytes` (preferred); or a decoded video of `datasets`. `kind`, `video` or `photo`, is
    for messages; `timeout` seconds limit the whole fetch; `max_bytes` limits URLs and file objects.

    Raises:
        VideoError: another type, or a failed, too slow or too large fetch.
    """
    source = getattr(source, "_hf_encoded", source)
    if isinstance(source, Mapping):
        source, name = _split_entry(source, kind)
    else:
        name = _name_of(source, kind)
    if isinstance(source, str | os.PathLike) and not _is_remote(source):
        yield LocalFile(_local_path(source), name)
        return
    with tempfile.TemporaryDirectory(prefix="mma-mrnnet-") as folder:
        suffix = PurePosixPath(_links(name)[0]).suffix.lower()
        path = Path(folder) / f"video{suffix if suffix in VIDEO_SUFFIXES else ''}"
        with path.open("wb") as file:
            if isinstance(source, str):
                _fetch(source, name, file, timeout, max_bytes)
            elif isinstance(source, bytes | bytearray | memoryview):
                file.write(source)
            else:
                _copy(source, name, file, max_bytes)
        try:
            yield LocalFile(path, name)
        except VideoError as error:
            raise VideoError(str(error).replace(str(path), name)) from error


# ---- what it is ---------------------------------------------------------------------------------


def _scheme(source: Any) -> str:
    """Return a URL's protocol; empty for everything else."""
    if not isinstance(source, str) or "://" not in source:
        return ""
    return source.split("://", 1)[0].split("::")[-1].lower()


def _links(url: str) -> list[str]:
    """Return the parts of a chain such as `zip://clip.mp4::https://host/clips.zip`."""
    return [url] if _scheme(url) in ("", "http", "https") else url.split("::")


def _is_remote(source: Any) -> bool:
    return _scheme(source) not in ("", "file")


def _local_path(path: str | os.PathLike[str]) -> Path:
    """Return the path of a path or file URL; expand `~` if there is no such file."""
    if _scheme(path) == "file":
        path = unquote(urlsplit(str(path)).path)
    path = Path(path)
    if path.parts[:1] and path.parts[0].startswith("~") and not path.exists():
        try:
            return path.expanduser()
        except RuntimeError:  # no such user
            return path
    return path


def _name_of(source: Any, kind: str) -> str:
    """Return a name for messages; raise VideoError for an unreadable source."""
    accepted = _ACCEPTED[kind]
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        if not isinstance(path, str) or not path:
            raise VideoError(f"a {kind}'s path is empty or not text; {accepted}")
        if len(path) > _LONGEST_PATH or "\0" in path:
            raise VideoError(f"a text of {len(path):,} characters is no path; {accepted}")
        return strip_secrets(path) if _is_remote(path) else path
    if isinstance(source, bytes | bytearray | memoryview):
        return f"{kind} of {memoryview(source).nbytes:,} bytes"
    if hasattr(source, "read"):
        name = getattr(source, "name", None)
        return name if isinstance(name, str) and name else "file object"
    type_ = type(source)
    hint = ""
    if hasattr(source, "column_names"):
        hint = "; of a whole data set give one column, such as dataset['video']"
    elif "Decoder" in type_.__name__:
        hint = "; of a decoder only one that `datasets` made, which knows its file"
    raise VideoError(
        f"a {kind} cannot be read from {type_.__module__}.{type_.__qualname__}; {accepted}{hint}"
    )


def _split_entry(entry: Mapping, kind: str) -> tuple[Any, str]:
    """Return source and name of a data-set entry."""
    path, content = entry.get("path"), entry.get("bytes")
    if content is not None:
        name = _name_of(content, kind)  # raises for unreadable sources
        if isinstance(content, str | os.PathLike):
            raise VideoError(
                f'"bytes" holds {type(content).__name__}, not bytes; {_ACCEPTED[kind]}'
            )
        return content, _name_of(path, kind) if path else name
    if path is None:
        keys = ", ".join(sorted(map(str, entry)))[:200] or "none"
        raise VideoError(
            f'a mapping with no "path" and no "bytes" (keys: {keys}); {_ACCEPTED[kind]}'
        )
    return path, _name_of(path, kind)


def strip_secrets(url: str) -> str:
    """Return a URL, or chain of URLs, without user, password and query."""
    return "::".join(_strip_one(part) if "://" in part else part for part in _links(url))


def _strip_one(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError as error:
        raise VideoError(f"{url}: not a URL ({error})") from error
    if parts.scheme.lower() not in ("http", "https"):
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    return f"{parts.scheme}://{host}{port}{parts.path}"


# ---- frames in memory ---------------------------------------------------------------------------


def _frames_in_memory(video: Any) -> Any:
    """Return an indexable sequence of frames; None if the video is something else."""
    if isinstance(video, list | tuple):
        if len(video) == 0:
            raise VideoError("an empty list holds no frames")
        if isinstance(video[0], Image.Image):
            return _check_frames(video, Image.Image)
        if hasattr(video[0], "shape"):
            for frame in _check_frames(video, type(video[0])):
                _check_array(frame, dimensions=3)
            return video
        return None
    if not (hasattr(video, "shape") and hasattr(video, "dtype")):
        return None
    _check_array(video, dimensions=4)
    if len(video) == 0:
        raise VideoError(f"an array {tuple(video.shape)} holds no frames")
    return video


def _check_frames(frames: Sequence[Any], type_: type) -> Sequence[Any]:
    for frame in frames:
        if not isinstance(frame, type_):
            raise VideoError(
                f"a list of frames holds {type(frame).__name__} beside {type_.__name__}"
            )
    return frames


def _check_array(array: Any, dimensions: int) -> None:
    shape, dtype = tuple(array.shape), str(array.dtype).removeprefix("torch.")
    is_rgb = len(shape) == dimensions and 3 in (shape[-1], shape[-3]) and 0 not in shape[-3:]
    if not is_rgb or dtype != "uint8":
        wanted = "(T, H, W, 3)" if dimensions == 4 else "(H, W, 3)"
        raise VideoError(
            f"arrays of frames must be {wanted} uint8 RGB in 0..255; got {dtype} {shape}"
        )


def _as_rgb(frame: Any) -> np.ndarray:
    """Return a frame as contiguous (H, W, 3) uint8 RGB; channels may come first."""
    if isinstance(frame, Image.Image):
        return read_picture(frame, "frame")
    array = np.asarray(frame.cpu() if hasattr(frame, "cpu") else frame)
    if array.shape[-1] != 3:
        array = array.transpose(1, 2, 0)
    return np.ascontiguousarray(array)


# ---- fetching and copying -----------------------------------------------------------------------


def _fetch(url: str, name: str, file: BinaryIO, timeout: float, max_bytes: int) -> None:
    if _scheme(url) not in ("http", "https"):
        _copy_by_fsspec(url, name, file, timeout, max_bytes)
        return

    async def download() -> None:
        await asyncio.wait_for(_download(url, name, file, max_bytes), timeout)

    try:
        # In a thread: a notebook already runs an event loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, download()).result()
    except TimeoutError as error:
        raise _too_slow(name, timeout, file) from error
    # UnicodeError: a long host name, or a URL with surrogates.
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        reason = str(error)
        if isinstance(error, httpx.TimeoutException):
            reason = reason or "no answer in time"
        raise VideoError(f"{name}: cannot be fetched: {type(error).__name__}: {reason}") from error


async def _download(url: str, name: str, file: BinaryIO, max_bytes: int) -> None:
    received = 0
    async with (
        httpx.AsyncClient(follow_redirects=True, timeout=_STALLED_AFTER_S) as client,
        client.stream("GET", url) as response,
    ):
        if response.is_error:
            answer = f"{response.status_code} {response.reason_phrase}".strip()
            raise VideoError(f"{name}: the server answered {answer}")
        announced = response.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > max_bytes:
            raise _too_large(name, max_bytes, f", {int(announced):,} are announced")
        async for piece in response.aiter_bytes():
            received += len(piece)
            if received > max_bytes:
                raise _too_large(name, max_bytes)
            file.write(piece)


def _copy_by_fsspec(url: str, name: str, file: BinaryIO, timeout: float, max_bytes: int) -> None:
    import fsspec

    if _scheme(url) not in fsspec.available_protocols():
        raise VideoError(f"{name}: no protocol that can be read; {_ACCEPTED['video']}")
    try:
        with fsspec.open(url, "rb") as source:
            _copy(source, name, file, max_bytes, timeout)
    except VideoError:
        raise
    except ImportError as error:  # it names the required package
        raise VideoError(f"{name}: cannot be fetched: {_one_line(error)}") from error
    # Every file system has its own errors.
    except Exception as error:
        reason = f"{type(error).__name__}: {_one_line(error)}".replace(url, name)
        raise VideoError(f"{name}: cannot be fetched: {reason}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _copy(
    source: Any, name: str, file: BinaryIO, max_bytes: int, timeout: float = float("inf")
) -> None:
    deadline, received = time.monotonic() + timeout, 0
    while piece := _read_piece(source, name):
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise VideoError(
                f'{name}: gives {type(piece).__name__}, not bytes; open a video file with "rb"'
            )
        received += len(piece)
        if received > max_bytes:
            raise _too_large(name, max_bytes)
        if time.monotonic() > deadline:
            raise _too_slow(name, timeout, file)
        file.write(piece)


def _read_piece(source: BinaryIO, name: str) -> Any:
    try:
        return source.read(_PIECE)
    except UnicodeDecodeError as error:
        raise VideoError(f'{name}: is open as text; open a video file with "rb"') from error
    except Exception as error:  # any object may have a `read`
        raise VideoError(f"{name}: cannot be read: {_one_line(error)}") from error


def _too_large(name: str, max_bytes: int, more: str = "") -> VideoError:
    return VideoError(f"{name}: larger than {max_bytes:,} bytes{more}; give a larger max_bytes")


def _too_slow(name: str, timeout: float, file: BinaryIO) -> VideoError:
    return VideoError(
        f"{name}: not fetched within {timeout:g} s ({file.tell():,} bytes came); "
        "give a longer timeout"
    )
