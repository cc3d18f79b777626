"""The features of a corpus's tables, as `clip_cache.py` keeps them."""

import os
from collections.abc import Sequence

import numpy as np

from mma_mrnnet.features.clip_cache import ClipCache
from mma_mrnnet.features.records import ClipFile
from mma_mrnnet.tables import exactly, read_feature_table

CACHE_FORMAT = 1  # raise it when reading a table gives other rows


class TableCache(ClipCache):
    """Features of tables that all have those of a first one, in its order.

    Args:
        folder: made where it is missing.
        first: the clip that says which features there are.
        patterns: of the columns that are features; none: the kind's own choice.
        fps: frames a second that denser tables are sampled at.

    Raises:
        ValueError: the first table cannot be read.
    """

    def __init__(
        self, folder: str | os.PathLike[str], first: ClipFile, patterns: Sequence[str], fps: float
    ) -> None:
        self.first = first.path
        self.patterns = list(patterns) or None
        self.fps = float(fps)
        table = read_feature_table(first.path, self.patterns, self.fps)
        self.kind, self.names = table.kind, list(table.names)
        settings = {
            "format": CACHE_FORMAT,
            "patterns": self.patterns,
            "names": self.names,
            "fps": self.fps,
        }
        super().__init__(
            folder, settings, len(self.names), self._features_of, lambda clip: clip.files
        )

    def _features_of(self, clip: ClipFile) -> np.ndarray:
        table = read_feature_table(clip.path, self.patterns, self.fps)
        different = sorted(set(table.names) ^ set(self.names))
        if different:
            raise ValueError(
                f"{clip.path}:1: other features than {self.first}: {', '.join(different[:10])} in one alone"
            )
        if list(table.names) != self.names:
            table = read_feature_table(clip.path, exactly(self.names), self.fps)
        return table.values
