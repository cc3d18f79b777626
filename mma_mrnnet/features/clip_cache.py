"""A cache of clips' rows of numbers, one row per frame and one file per clip.

`clip_rows.py` defines the rows: an extractor's affect, or a table's features.
"""

import logging
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from mma_mrnnet.crops.store import CropError
from mma_mrnnet.features.records import CLIP_SPLITS, ClipFile
from mma_mrnnet.files import content_digest, replaced_file
from mma_mrnnet.video.reading import VideoError

logger = logging.getLogger(__name__)

MEMORY = 2**30
"""Bytes of rows that are held in memory; larger corpora are read from their files."""


class ClipCache:
    """A folder of cached rows, one file per clip.

    The file name is a digest of `settings` (JSON-serialisable) and of path, size and modification
    time of the clip's files. Files are written atomically, so that processes can share a folder,
    and a killed run can continue. A damaged file is computed again. `read` returns a clip's rows,
    (L, width) float32, or raises VideoError or CropError; `files` is empty for a missing clip.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: dict[str, Any],
        width: int,
        read: Callable[[ClipFile], np.ndarray],
        files: Callable[[ClipFile], list[Path]],
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.width = width
        self._settings, self._read, self._files = settings, read, files

    def key_of(self, clip: ClipFile) -> str:
        """Return a digest of all that determines the clip's rows."""
        files = []
        folders: dict[Path, Path] = {}
        for path in self._files(clip):
            status = path.stat()
            if path.parent not in folders:  # once per folder: `resolve` is slow
                folders[path.parent] = path.parent.resolve()
            place = str(folders[path.parent] / path.name)
            files.append([place, status.st_size, status.st_mtime_ns])
        return content_digest({**self._settings, "files": files or str(clip.path.resolve())})[:40]

    def path_of(self, key: str) -> Path:
        """Return the file for a key."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def stored(self, clip: ClipFile) -> np.ndarray | None:
        """Return the cached rows; None if missing or damaged."""
        key = self.key_of(clip)
        path = self.path_of(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, "numpy") as file:
                metadata, rows = file.metadata(), file.get_tensor("rows")
        except (OSError, SafetensorError) as error:
            logger.warning("%s: damaged (%s); computed again", path, error)
            return None
        is_ours = metadata == {"key": key, "checksum": _checksum(rows)}
        if not is_ours or rows.dtype != np.float32 or rows.shape[1:] != (self.width,):
            logger.warning("%s: not the rows of %s; computed again", path, clip.clip_id)
            return None
        return rows

    def compute(self, clip: ClipFile) -> np.ndarray:
        """Compute and store the clip's rows, (L, width) float32.

        Raises VideoError or CropError if the clip is unreadable.
        """
        key = self.key_of(clip)  # computed before reading: the clip may change meanwhile
        path = self.path_of(key)
        rows = np.ascontiguousarray(self._read(clip), np.float32)
        path.parent.mkdir(exist_ok=True)
        with replaced_file(path) as staging:
            save_file({"rows": rows}, staging, {"key": key, "checksum": _checksum(rows)})
        return rows


def _checksum(rows: np.ndarray) -> str:
    return f"{zlib.crc32(rows.tobytes()):08x}"


class StoredRows(Sequence[np.ndarray]):
    """The cached rows of several clips, read on access.

    `paths` are files of a `ClipCache`; `columns` are indices, or None for all.
    """

    def __init__(self, paths: Sequence[Path], columns: list[int] | None = None) -> None:
        self.paths, self.columns = list(paths), columns

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredRows": ...
    def __getitem__(self, index: int | slice) -> "np.ndarray | StoredRows":
        """Return one clip's rows, (L, width) float32, or a slice of the clips."""
        if isinstance(index, slice):
            return StoredRows(self.paths[index], self.columns)
        rows = load_file(self.paths[index])["rows"]
        return rows if self.columns is None else rows[:, self.columns]


def select_columns(rows: Sequence[np.ndarray], columns: list[int]) -> Sequence[np.ndarray]:
    """Return the rows of all clips with only these columns."""
    if isinstance(rows, StoredRows):
        return StoredRows(rows.paths, columns)
    return [clip[:, columns] for clip in rows]


@dataclass(frozen=True)
class SplitRows:
    """The rows of a split's clips.

    Attributes:
        clips: clips with at least one row, in corpus order; labelled ones first.
        rows: (L, width) float32 for each of `clips`.
        lengths: (N,) int64, rows of each of `clips`.
        labelled: number of labelled `clips`.
        without_rows: ids of readable clips without rows, such as clips without a face.
        fingerprint: digest of ids, labels and cache keys of all readable clips.
    """

    targets: list[str]
    clips: list[ClipFile]
    rows: Sequence[np.ndarray]
    lengths: np.ndarray
    labelled: int
    without_rows: list[str]
    unreadable: list[str]
    fingerprint: str


@dataclass(frozen=True)
class _Entry:
    """The rows of a readable clip; `rows` is None if they are not held in memory."""

    key: str
    length: int
    rows: np.ndarray | None


def read_splits(
    clips: list[ClipFile], cache: ClipCache, *, start: float = 0.0
) -> dict[str, SplitRows]:
    """Return the rows of a corpus's clips by split; compute rows that the cache lacks.

    `start`, a share of the clips in [0, 1), is where to begin. Processes with different starts
    share the work through the cache; the result is the same.
    """
    entries = _read_entries(clips, cache, start)
    splits = {}
    for split in CLIP_SPLITS:
        chosen = [clip for clip in clips if clip.split == split]
        if not chosen:
            continue
        splits[split] = found = _split_rows(chosen, entries, cache)
        logger.info(
            "rows of %d clips of %s; besides, %d without a face or usable row, %d unreadable",
            len(found.clips), split, len(found.without_rows), len(found.unreadable),
        )  # fmt: skip
    return splits


def _read_entries(clips: list[ClipFile], cache: ClipCache, start: float) -> dict[str, _Entry]:
    """Return the readable clips by id; unreadable ones are tried again in each run."""
    first = int(start * len(clips))
    entries: dict[str, _Entry] = {}
    computed, held = 0, 0
    for clip in tqdm(clips[first:] + clips[:first], desc="rows of clips", mininterval=5):
        if not clip.path.exists():
            logger.warning("left out: %s is missing", clip.path)
            continue
        try:
            key = cache.key_of(clip)
            rows = cache.stored(clip)
            if rows is None:
                rows = cache.compute(clip)
                computed += 1
        except (VideoError, CropError) as error:
            logger.warning("left out: %s", error)
            continue
        held += rows.nbytes
        entries[clip.clip_id] = _Entry(key, len(rows), rows if held <= MEMORY else None)
    logger.info("computed %d clips; %d are from the cache", computed, len(entries) - computed)
    return entries


def _split_rows(clips: list[ClipFile], entries: dict[str, _Entry], cache: ClipCache) -> SplitRows:
    readable = [clip for clip in clips if clip.clip_id in entries]
    content = [[clip.clip_id, clip.subject, clip.labels] for clip in readable]
    keys = [entries[clip.clip_id].key for clip in readable]
    readable.sort(key=lambda clip: not clip.is_labelled)
    usable = [clip for clip in readable if entries[clip.clip_id].length > 0]
    found = [entries[clip.clip_id] for clip in usable]
    held = [entry.rows for entry in found if entry.rows is not None]
    rows: Sequence[np.ndarray] = held
    if len(held) < len(found):
        rows = StoredRows([cache.path_of(entry.key) for entry in found])
    return SplitRows(
        targets=list(clips[0].labels),
        clips=usable,
        rows=rows,
        lengths=np.array([entry.length for entry in found], np.int64),
        labelled=sum(clip.is_labelled for clip in usable),
        without_rows=[clip.clip_id for clip in readable if entries[clip.clip_id].length == 0],
        unreadable=[clip.clip_id for clip in clips if clip.clip_id not in entries],
        fingerprint=content_digest(content, keys),
    )
