"""The cached rows of a clip: numbers per face crop, or features per table row."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mma_mrnnet.crops.store import CropError, read_index
from mma_mrnnet.faces.affect import CHUNK, extract_affect, extract_people
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.faces.tracks import crop_faces, rank_people
from mma_mrnnet.features.clip_cache import ClipCache
from mma_mrnnet.features.records import ClipFile
from mma_mrnnet.files import content_digest
from mma_mrnnet.hub.checkpoints import weights_digest
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import SCALING, MMAMRNNetVideoProcessor
from mma_mrnnet.tables.features import FeatureTable, exactly, is_measure, read_feature_table
from mma_mrnnet.video.pictures import PictureError, read_picture
from mma_mrnnet.video.reading import read_frames

logger = logging.getLogger(__name__)

FACE_FORMAT = 3
"""Increase it if decoding, detection, tracking or alignment changes the crops."""
TABLE_FORMAT = 2
"""Increase it if reading a table gives other rows."""
LOOKED_AT = 20
"""Number of tables that are searched for columns without numbers."""
UNEVEN = 0.1
"""A column is a row counter if its steps differ by at most this share (our choice)."""


class FaceCache(ClipCache):
    """One row per face crop of a video, of stored crops or of a plain folder of crops.

    `rows_of` maps N >= 0 crops, (H, W, 3) uint8 RGB of any size, to (N, width) float32; `settings`
    must identify it. Videos are read at `fps`, with crops of side `size`; crops without an index
    are all used.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: dict[str, Any],
        width: int,
        *,
        size: int,
        fps: float,
        rows_of: Callable[[list[np.ndarray]], np.ndarray],
    ) -> None:
        self.fps = float(fps)
        self._size, self._rows_of = size, rows_of
        self._detector: FaceDetector | None = None
        settings = {"format": FACE_FORMAT, "fps": self.fps, **settings}
        super().__init__(folder, settings, width, self._read_rows, self._find_files)

    def _find_files(self, clip: ClipFile) -> list[Path]:
        """Return the clip's files at this rate; only crops with an index can be thinned."""
        index = read_index(clip.path) if clip.path.is_dir() else None
        return clip.files if index is None else index.files_at(clip.path, self.fps)

    def _read_rows(self, clip: ClipFile) -> np.ndarray:
        if not clip.path.is_dir():
            return self._read_video(clip.path)
        rows = [self._rows_of(crops) for crops in _read_chunks(self._find_files(clip))]
        return np.concatenate(rows) if rows else self._rows_of([])

    def _read_video(self, path: Path) -> np.ndarray:
        """Return the rows of the person that prediction uses, bit-identical."""
        self._detector = self._detector or FaceDetector()
        frames = crop_faces(read_frames(path, self.fps), self._size, self._detector)
        found = list(extract_people(frames, self._rows_of))
        people = rank_people(frame for frame, _ in found)
        rows = [row[people[0]] for _, row in found if people[0] in row] if people else []
        return np.stack(rows) if rows else self._rows_of([])


def _read_chunks(files: list[Path]) -> Iterator[list[np.ndarray]]:
    for first in range(0, len(files), CHUNK):
        yield [_read_crop(path) for path in files[first : first + CHUNK]]


def _read_crop(path: Path) -> np.ndarray:
    try:
        return read_picture(path)
    except (OSError, PictureError) as error:
        raise CropError(str(error)) from error


class AffectCache(FaceCache):
    """The affect of clips from one extractor (in eval mode) at one frame rate.

    The processor's scaling is part of the key.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        extractor: MMAModel,
        processor: MMAMRNNetVideoProcessor,
        fps: float,
    ) -> None:
        self.extractor, self.processor = extractor, processor
        super().__init__(
            folder,
            {"extractor": model_digest(extractor), "scaling": scaling_settings(processor)},
            extractor.config.affect_size,
            size=extractor.config.image_size,
            fps=fps,
            rows_of=lambda crops: extract_affect(crops, extractor, processor),
        )


def model_digest(extractor: MMAModel) -> str:
    """Return a digest of the weights, bit for bit, and of settings that change the outputs."""
    config = extractor.config
    settings = config.to_dict()["backbone_config"]
    backbone = {name: value for name, value in settings.items() if name[0] != "_"}
    backbone.pop("transformers_version", None)
    units = list(config.action_units)
    return content_digest(config.image_size, units, backbone, weights_digest(extractor))


def scaling_settings(processor: MMAMRNNetVideoProcessor) -> dict[str, Any]:
    """Return the settings that change pixel values, JSON-serialisable."""
    settings: dict[str, Any] = {name: getattr(processor, name) for name in SCALING}
    sides = dict(processor.size).items()
    settings["size"] = {side: length for side, length in sides if length is not None}
    return settings


class TableCache(ClipCache):
    """The features of tables, in the column order of the first table.

    Without `patterns` of feature columns, those of the kind of table are used, and columns without
    numbers in all of the first tables are dropped. Tables denser than `fps` are sampled.
    `table_fps` is the rate of tables without times; None uses every row. Raises ValueError if the
    first table cannot be read.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        clips: Sequence[ClipFile],
        patterns: Sequence[str],
        fps: float,
        table_fps: float | None = None,
    ) -> None:
        self.first = clips[0].path
        self.patterns = list(patterns) or None
        self.fps, self.table_fps = float(fps), table_fps
        table = self._read_table(self.first, self.patterns)
        empty = set(table.empty)
        for clip in clips[1:LOOKED_AT]:
            if not empty:
                break
            empty &= set(self._read_table(clip.path, self.patterns).empty)
        self.kind, self.names = table.kind, [name for name in table.chosen if name not in empty]
        self.left_out = {
            **dict.fromkeys(table.ignored, "no feature"),
            **dict.fromkeys(empty, "empty"),
        }
        settings = {
            "format": TABLE_FORMAT,
            "patterns": self.patterns,
            "names": self.names,
            "fps": self.fps,
            "table_fps": table_fps,
        }
        super().__init__(
            folder, settings, len(self.names), self._read_features, lambda clip: clip.files
        )

    def _read_table(self, path: Path, patterns: list[str] | None) -> FeatureTable:
        return read_feature_table(path, patterns, self.fps, self.table_fps)

    def _read_features(self, clip: ClipFile) -> np.ndarray:
        table = self._read_table(clip.path, self.patterns)
        different = sorted(set(table.chosen) - set(self.left_out) ^ set(self.names))
        if different:
            raise ValueError(
                f"{clip.path}:1: other features than {self.first}: "
                f"{', '.join(different[:10])} in one alone"
            )
        if table.warning:
            logger.warning("%s: %s", clip.path, table.warning)
        if list(table.names) != self.names:
            table = self._read_table(clip.path, exactly(self.names))
        return table.values


def find_unmeasured(names: Sequence[str], clips: Sequence[np.ndarray]) -> dict[str, str]:
    """Find columns that are no measurements: row counters, or constant in each clip.

    `names` are the F columns; `clips` are (L, F) rows each. Returns a reason by column name; empty
    if fewer than two clips have four rows. Columns with names of measures are never returned.
    """
    counts, is_constant = np.ones(len(names), bool), np.ones(len(names), bool)
    seen = 0
    for rows in clips:
        if len(rows) < 4:
            continue
        seen += 1
        steps = np.diff(rows.astype(np.float64), axis=0)  # (L - 1, F)
        mean = steps.mean(0)
        counts &= (mean != 0) & (np.abs(steps - mean) <= UNEVEN * np.abs(mean)).all(0)
        is_constant &= (steps == 0).all(0)
    found = {}
    for name, counting, constant in zip(names, counts, is_constant, strict=True):
        if seen < 2 or is_measure(name) or not (counting or constant):
            continue
        found[name] = "counts with the rows" if counting else "is constant in each clip"
    return found
