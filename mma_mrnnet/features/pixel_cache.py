"""The pixels of a corpus's face crops as rows of numbers, as `clip_cache.py` keeps them."""

import os

import numpy as np

from mma_mrnnet.faces.affect import scale_crops
from mma_mrnnet.faces.detection import TEMPLATE_SIZE
from mma_mrnnet.features.clip_rows import FaceCache, scaling_settings
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor


class PixelCache(FaceCache):
    """Crops of clips at one frame rate, each a row of 3 * S * S pixel values in [-1, 1]: channel, row, column.

    Videos are cut to crops of the template's size first, as `mma-mrnnet crop` stores them.

    Args:
        folder: made where it is missing.
        processor: its scaling and its `size` S say what the pixel values are.
        fps: frames a second taken from videos; crops without an index are taken as they come.
    """

    def __init__(
        self, folder: str | os.PathLike[str], processor: MMAMRNNetVideoProcessor, fps: float
    ) -> None:
        width = 3 * processor.size["height"] * processor.size["width"]

        def rows_of(crops: list[np.ndarray]) -> np.ndarray:
            if not crops:
                return np.zeros((0, width), np.float32)
            return scale_crops(crops, processor).flatten(1).numpy()

        settings = {"rows": "pixels", "scaling": scaling_settings(processor)}
        super().__init__(folder, settings, width, size=TEMPLATE_SIZE, fps=fps, rows_of=rows_of)
