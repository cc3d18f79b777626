"""Rows of numbers computed from clips' face crops, however these lie, as `clip_cache.py` keeps them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mma_mrnnet.crops.store import CropError, read_index
from mma_mrnnet.faces.affect import CHUNK, extract_people
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.faces.tracks import crop_faces, rank_people
from mma_mrnnet.features.clip_cache import ClipCache
from mma_mrnnet.features.records import ClipFile
from mma_mrnnet.video.reading import read_frames

CACHE_FORMAT = (
    2  # raise it when decoding, detection, following or alignment change what a clip's crops are
)


class FaceCache(ClipCache):
    """A row for each face crop of videos, stored crops or plain folders of crops, at one frame rate.

    Args:
        folder: made where it is missing.
        settings: what the rows depend on beside clip and rate, as JSON can hold it.
        width: numbers a row.
        size: side in pixels of the crops that videos are cut to.
        fps: frames a second taken from videos; crops without an index are taken as they come.
        rows_of: N crops, (H, W, 3) uint8 RGB each and of any size, N may be 0 -> (N, width) float32.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: dict[str, object],
        width: int,
        *,
        size: int,
        fps: float,
        rows_of: Callable[[list[np.ndarray]], np.ndarray],
    ) -> None:
        self.fps = float(fps)
        self._size, self._rows_of = size, rows_of
        self._detector: FaceDetector | None = None
        settings = {"format": CACHE_FORMAT, "fps": self.fps, **settings}
        super().__init__(folder, settings, width, self._rows_of_clip, self._files_of)

    def _files_of(self, clip: ClipFile) -> list[Path]:
        """The clip's files at this cache's rate, which only crops with an index can be thinned to."""
        index = read_index(clip.path) if clip.path.is_dir() else None
        return clip.files if index is None else index.files_at(clip.path, self.fps)

    def _rows_of_clip(self, clip: ClipFile) -> np.ndarray:
        if not clip.path.is_dir():
            return self._rows_of_video(clip.path)
        rows = [self._rows_of(crops) for crops in self._stored(self._files_of(clip))]
        return np.concatenate(rows) if rows else self._rows_of([])

    def _rows_of_video(self, path: Path) -> np.ndarray:
        """Of the person whom prediction means too, and by chunks of as many frames: the same numbers, bit by bit."""
        self._detector = self._detector or FaceDetector()
        frames = crop_faces(read_frames(path, self.fps), self._size, self._detector)
        found = list(extract_people(frames, self._rows_of))
        people = rank_people(frame for frame, _ in found)
        rows = [row[people[0]] for _, row in found if people[0] in row] if people else []
        return np.stack(rows) if rows else self._rows_of([])

    def _stored(self, files: list[Path]) -> Iterator[list[np.ndarray]]:
        for first in range(0, len(files), CHUNK):
            yield [_read_crop(path) for path in files[first : first + CHUNK]]


def _read_crop(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    # What Pillow raises on a damaged file depends on the format; a huge one is refused by its own rule.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise CropError(
            f"{path}: not an image that can be read ({type(error).__name__})"
        ) from error
