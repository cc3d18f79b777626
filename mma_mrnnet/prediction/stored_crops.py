"""Read the crops that `mma-mrnnet crop` stored, as the frames of one person in a video."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mma_mrnnet.crops.store import CropError, read_index
from mma_mrnnet.faces.detection import Detection
from mma_mrnnet.faces.tracks import PeopleFrame
from mma_mrnnet.video.pictures import PictureError, read_picture
from mma_mrnnet.video.reading import FrameClock

PERSON = 0  # the person in most frames
# The box and the score of a face are not stored.
UNKNOWN = Detection((float("nan"),) * 4, np.full((5, 2), np.nan), score=float("nan"))


class StoredClip:
    """The frames of a folder of crops that are due at `fps`, in time order.

    `table_fps` is the rate of the per-frame table, None for every frame. `duration_s` is the
    video's; `warning` says what a damaged video lost.

    Raises:
        CropError: the index or a crop is missing, or the crops have another rate.
    """

    def __init__(self, folder: Path, fps: float, table_fps: float | None) -> None:
        index = read_index(folder)
        if index is None:
            raise CropError(
                f"{folder}: is a folder, and none that `mma-mrnnet crop` made of a clip"
            )
        index.files_at(folder, fps)
        if table_fps is None and index.settings.fps is not None:
            raise CropError(f"{folder}: holds crops at {fps:g} a second, not of every frame")
        if table_fps is not None and index.settings.fps is not None and table_fps != fps:
            raise CropError(f"{folder}: holds crops at {fps:g} a second, not at {table_fps:g}")
        self._folder, self._index = folder, index
        self._clocks = FrameClock(fps), FrameClock(table_fps)
        self.duration_s = self.announced_s = index.duration_s
        self.warning = index.warning

    def __iter__(self) -> Iterator[PeopleFrame]:
        for number, time_s, has_face in self._index.frames:
            due = tuple(clock.keeps(time_s) for clock in self._clocks)
            if not any(due):
                continue
            crops = {PERSON: self._read_crop(number)} if has_face else {}
            faces = dict.fromkeys(crops, UNKNOWN)
            yield PeopleFrame(number - 1, time_s, due, faces, crops)

    def _read_crop(self, number: int) -> np.ndarray:
        path = self._folder / self._index.settings.name_of(number)
        try:
            return read_picture(path)
        except (OSError, PictureError) as error:
            raise CropError(str(error)) from error
