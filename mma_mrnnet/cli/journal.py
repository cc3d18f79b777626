"""Journal of `predict --workers`: one line a finished clip, so that a killed run can go on."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from mma_mrnnet.files import locked

Record = dict[str, Any]
"""What is kept of one clip, JSON-serialisable."""


class Journal:
    """An open journal, locked by this process.

    The first line holds the settings, each other line one clip. Lines are only appended; of two
    lines for one clip the later one counts.
    """

    def __init__(self, path: Path, file: BinaryIO, settings: Record) -> None:
        self._path, self._file = path, file
        self._places: dict[str, int] = {}  # where a clip's line starts, in bytes
        self._sources: dict[str, object] = {}
        end = 0
        for line in file:
            if not line.endswith(b"\n"):  # the process was killed while it wrote
                break
            content = self._parse(line)
            if end == 0:
                self._check(content, settings)
            else:
                clip = content["clip"]
                self._places[clip], self._sources[clip] = end, content["source"]
            end += len(line)
        file.truncate(end)
        file.seek(end)
        if end == 0:
            self._append({"settings": settings})

    @classmethod
    @contextmanager
    def open(cls, path: Path, settings: Record) -> Iterator[Self]:
        """Open the journal, new or of a killed run.

        Raises:
            ValueError: it holds clips of other settings or is none, or another process uses it.
            OSError: it cannot be written.
        """
        path.open("ab").close()
        with locked(path, "another run writes here; wait for it to end"), path.open("r+b") as file:
            yield cls(path, file, settings)

    def holds(self, clip: str) -> bool:
        """Return whether the clip is done, and its file the same since."""
        return clip in self._places and self._sources[clip] == _source_of(clip)

    def add(self, clip: str, record: Record) -> None:
        """Append a clip; it is on disk when this returns."""
        self._file.seek(0, os.SEEK_END)
        self._places[clip] = self._file.tell()
        self._append({"clip": clip, "source": _source_of(clip), **record})

    def read(self, clips: Sequence[str]) -> Iterator[Record]:
        """Yield the clips' records, in the order of `clips`."""
        for clip in clips:
            self._file.seek(self._places[clip])
            yield json.loads(self._file.readline())

    def remove(self) -> None:
        """Remove the journal; its results stand elsewhere."""
        self._path.unlink()

    def _append(self, content: Record) -> None:
        self._file.write(json.dumps(content, default=_to_number).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _parse(self, line: bytes) -> Record:
        try:
            content = json.loads(line)
            if content.keys() & {"settings", "clip"}:
                return content
        except (ValueError, AttributeError):
            pass
        raise ValueError(f"{self._path}: is no journal of `mma-mrnnet predict`; move it away")

    def _check(self, content: Record, settings: Record) -> None:
        kept = content.get("settings", {})
        changed = [
            f"{name} was {kept.get(name)}, now {value}"
            for name, value in settings.items()
            if kept.get(name) != value
        ]
        if changed:
            raise ValueError(
                f"{self._path}: holds the clips of a run with other settings: "
                f"{'; '.join(changed)}. Use the same to go on, or remove the file to begin again"
            )


def _source_of(clip: str) -> list[int] | None:
    """Return a file's size in bytes and time of change in ns; None for what is no file."""
    try:
        status = Path(clip).stat()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _to_number(value: Any) -> object:
    return value.item()  # of numpy
