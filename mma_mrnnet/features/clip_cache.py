"""What stage 2 reads of a corpus's clips, a row a frame: computed once, kept on disk, and opened as one file a split.

What a row is, the extractor's affect or a table's features, is for `affect_cache.py` and `table_cache.py` to say.
"""

import hashlib
import json
import logging
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import datasets
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from mma_mrnnet.crops.store import CropError
from mma_mrnnet.features.arrow_files import (
    frame_counts,
    frames_column,
    remove_stale,
    store_dataset,
    stored_dataset,
)
from mma_mrnnet.features.records import CLIP_SPLITS, ClipFile, clip_features
from mma_mrnnet.video.reading import VideoError

logger = logging.getLogger(__name__)

TABLE_FORMAT = 1  # raise it when the rows of a split's file change
PART = 256  # clips that memory holds while a split's file is written


class _LostClipError(Exception):
    """The clip with this id cannot be read any more, and the file with its rows is damaged."""


@dataclass
class SplitAffect:
    """The affect of a split's clips.

    Attributes:
        rows: the clips with a face, columns of `records.clip_features`, memory-mapped: first the clips with a label,
            then those without one, each in the corpus's order.
        labelled: how many of `rows` have a label.
        without_face: ids of the clips in which no face was found.
        unreadable: ids of the clips that could not be read, or are not there.
    """

    rows: datasets.Dataset
    labelled: int
    without_face: list[str]
    unreadable: list[str]


class ClipCache:
    """The frames of clips as rows of numbers, a file a clip.

    A file's name is a digest of all that its content depends on: the settings, and path, size and time of change of
    the clip's files. Files are written beside their place and renamed, so that processes may share a folder, and a
    killed run goes on where it was.

    Args:
        folder: made where it is missing.
        settings: what the rows depend on beside the clip, as JSON can hold it.
        width: numbers a row.
        read: a clip -> (L, width) float32 of its frames with a face, or a VideoError or CropError.
        files: a clip -> the files that it is read from; none where it is not there.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: dict[str, object],
        width: int,
        read: Callable[[ClipFile], np.ndarray],
        files: Callable[[ClipFile], list[Path]],
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale(self.folder)
        self.width = width
        self._settings, self._read, self._files = settings, read, files

    def key_of(self, clip: ClipFile) -> str:
        """A digest of all that the clip's affect depends on."""
        files: list = []
        folders: dict[Path, Path] = {}
        for path in self._files(clip):
            status = path.stat()
            if path.parent not in folders:
                folders[path.parent] = (
                    path.parent.resolve()
                )  # once: it costs thirty times what the status does
            files.append(
                [str(folders[path.parent] / path.name), status.st_size, status.st_mtime_ns]
            )
        files = files or [str(clip.path.resolve())]
        content = json.dumps({**self._settings, "files": files}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:40]

    def path_of(self, clip: ClipFile) -> Path:
        """Where the clip's affect lies, or will."""
        return self.file_of(self.key_of(clip))

    def file_of(self, key: str) -> Path:
        """Where the affect of the clip with this key lies, or will."""
        return self.folder / f"{key}.npz"

    def stored(self, clip: ClipFile) -> np.ndarray | None:
        """(L, A) float32 from the cache; None where it is not there, damaged or another clip's."""
        key = self.key_of(clip)
        path = self.file_of(key)
        try:
            with np.load(path, allow_pickle=False) as file:
                affect, found = file["affect"], str(file["key"])
        except FileNotFoundError:
            return None
        # What numpy raises on a damaged archive depends on where the damage is.
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
            NotImplementedError,
        ) as error:
            logger.warning("%s: damaged (%s); computed again", path, type(error).__name__)
            return None
        fits = affect.dtype == np.float32 and affect.ndim == 2 and affect.shape[1] == self.width
        if found != key or not fits or not np.isfinite(affect).all():
            logger.warning("%s: not the affect of %s; computed again", path, clip.clip_id)
            return None
        return affect

    def compute(self, clip: ClipFile) -> np.ndarray:
        """(L, A) float32 of the clip's frames with a face, computed and stored.

        Raises:
            VideoError: a video that cannot be read.
            CropError: a crop that cannot be read, or crops of another rate.
        """
        key = self.key_of(
            clip
        )  # before the clip is read: should it change meanwhile, the next run notices
        path = self.file_of(key)
        affect = self._read(clip)
        staging = path.with_name(f".{path.name}.tmp-{uuid4().hex}")
        try:
            with staging.open("wb") as file:
                np.savez(file, affect=affect, key=np.array(key))
            staging.replace(path)
        finally:
            staging.unlink(missing_ok=True)
        return affect


def corpus_affect(
    clips: list[ClipFile], cache: ClipCache, *, start: float = 0.0
) -> dict[str, SplitAffect]:
    """Affect of all clips, split by split, computed where the cache does not have it.

    Each split is one file in the cache's folder beside those of its clips, named by a digest of the clips' affect
    files, ids and labels: it is built once and then only opened, and memory holds none of it.

    Args:
        clips: of one corpus.
        cache: where affect is kept.
        start: share of the clips after which to begin, in [0, 1). Processes that begin at different places share the
            work, each finding in the cache what the others did.

    Returns:
        The splits that have clips; the same wherever the work began.
    """
    keys = _complete(clips, cache, start)
    splits = {split: [clip for clip in clips if clip.split == split] for split in CLIP_SPLITS}
    done = {
        split: _split_affect(split, chosen, keys, cache)
        for split, chosen in splits.items()
        if chosen
    }
    for split, affect in done.items():
        logger.info(
            "affect of %d clips of %s; besides, %d without a face, %d unreadable",
            len(affect.rows), split, len(affect.without_face), len(affect.unreadable),
        )  # fmt: skip
    return done


def _complete(clips: list[ClipFile], cache: ClipCache, start: float) -> dict[str, str]:
    """The cache's key of each clip that can be read, by its id; all of them are in the cache now.

    Clips that cannot be read are tried again in each run: what was in the way may be gone.
    """
    first, computed, keys = int(start * len(clips)), 0, {}
    for number in tqdm(
        [*range(first, len(clips)), *range(first)], desc="affect of clips", mininterval=5
    ):
        clip = clips[number]
        if not clip.path.exists():
            logger.warning("left out: %s is not there", clip.path)
            continue
        try:
            key = cache.key_of(clip)
            if not cache.file_of(key).is_file():
                cache.compute(clip)
                computed += 1
            keys[clip.clip_id] = key
        except (VideoError, CropError) as error:
            logger.warning("left out: %s", error)
    logger.info("affect of %d clips computed, of %d from the cache", computed, len(keys) - computed)
    return keys


def _split_affect(
    split: str, clips: list[ClipFile], keys: dict[str, str], cache: ClipCache
) -> SplitAffect:
    readable = [clip for clip in clips if clip.clip_id in keys]
    content = [[clip.clip_id, clip.subject, clip.labels, keys[clip.clip_id]] for clip in readable]
    digest = hashlib.sha256(json.dumps([TABLE_FORMAT, content]).encode()).hexdigest()[:40]
    name = f"{split}-{digest}"
    features = clip_features(len(clips[0].labels), cache.width)
    table = stored_dataset(cache.folder, name, features)
    if table is None:
        try:
            table = store_dataset(_parts(readable, cache, features), cache.folder, name, features)
        except _LostClipError as lost:  # rare; what is left has a name of its own
            left = {clip_id: key for clip_id, key in keys.items() if clip_id != lost.args[0]}
            return _split_affect(split, clips, left, cache)
    ids = list(table["clip_id"])
    unreadable = {clip.clip_id for clip in clips} - set(ids)
    with_face = int((frame_counts(table) > 0).sum())  # the others stand last
    labelled = {clip.clip_id for clip in clips if clip.is_labelled}
    return SplitAffect(
        rows=table.select(range(with_face)),
        labelled=len(labelled.intersection(ids[:with_face])),
        without_face=ids[with_face:],
        unreadable=[clip.clip_id for clip in clips if clip.clip_id in unreadable],
    )


def _parts(
    clips: list[ClipFile], cache: ClipCache, features: datasets.Features
) -> Iterator[pa.Table]:
    """The clips' rows in the order of `SplitAffect.rows`, those without a face last."""
    part, without_face = [], []
    for clip in tqdm(
        sorted(clips, key=lambda clip: not clip.is_labelled), desc="table of affect", mininterval=5
    ):
        try:
            affect = cache.stored(clip)
            affect = cache.compute(clip) if affect is None else affect
        except (VideoError, CropError) as error:
            logger.warning("left out: %s", error)
            cache.path_of(clip).unlink(
                missing_ok=True
            )  # the next run then notices before it writes
            raise _LostClipError(clip.clip_id) from error
        (part if len(affect) else without_face).append((clip, affect))
        if len(part) == PART:
            yield _table(part, features)
            part = []
    if part + without_face:
        yield _table(part + without_face, features)


def _table(clips: list[tuple[ClipFile, np.ndarray]], features: datasets.Features) -> pa.Table:
    """One clip or more and their affect as rows; all are of kind `reaction`."""
    columns = {
        "clip_id": [clip.clip_id for clip, _ in clips],
        "subject": [clip.subject for clip, _ in clips],
        "kind": ["reaction"] * len(clips),
        "affect": frames_column([affect for _, affect in clips], features),
        "labels": [list(clip.labels.values()) for clip, _ in clips],
    }
    return pa.table(columns, schema=features.arrow_schema)
