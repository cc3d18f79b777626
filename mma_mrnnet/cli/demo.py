"""A clip made from a public-domain photo, the whole job on it, and a picture of the result. Needs the `demo` extra."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mma_mrnnet.prediction import VideoPrediction, clip_table, predict_video, write_table
from mma_mrnnet.report.picture import draw_prediction, figure_class
from mma_mrnnet.video.writing import write_video

FPS = 25
DURATION_S = 6


def astronaut() -> np.ndarray:
    """NASA's portrait of Eileen Collins (public domain), as scikit-image carries it: (512, 512, 3) uint8 RGB.

    Raises:
        ValueError: scikit-image is not installed.
    """
    try:
        from skimage.data import astronaut as photo
    except ImportError as error:
        raise ValueError("the demo needs its extra: pip install 'mma-mrnnet[demo]'") from error
    return photo()


def camera_move(
    photo: np.ndarray, frames: int, size: tuple[int, int] = (640, 480)
) -> Iterator[np.ndarray]:
    """A slow zoom onto the upper middle of a photo, as (height, width, 3) uint8 RGB frames of `size`."""
    width, height = size
    for number in range(frames):
        progress = number / max(frames - 1, 1)
        zoom = height / photo.shape[0] * (1.0 + 0.4 * progress)
        focus = np.array([photo.shape[1] * 0.45, photo.shape[0] * (0.5 - 0.15 * progress)])
        matrix = np.array(
            [[zoom, 0, width / 2 - zoom * focus[0]], [0, zoom, height / 2 - zoom * focus[1]]]
        )
        yield cv2.warpAffine(
            photo, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )


def run_demo(folder: Path) -> tuple[VideoPrediction, dict[str, Path]]:
    """Makes the clip, predicts, and writes clip, tables and picture.

    Args:
        folder: made where it is missing; files of an earlier demo are replaced.

    Returns:
        The prediction, and what was written where.

    Raises:
        ValueError: the extra is not installed; nothing was made.
    """
    photo = astronaut()
    figure_class()  # like the photo: before any work, as the extra may be missing
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        name: folder / file
        for name, file in (
            ("clip", "astronaut.mp4"),
            ("result", "result.csv"),
            ("frames", "frames.csv"),
            ("picture", "result.png"),
        )
    }
    write_video(written["clip"], camera_move(photo, FPS * DURATION_S), FPS)
    prediction = predict_video(written["clip"])
    write_table(clip_table([prediction]), written["result"])
    write_table(prediction.frames, written["frames"])
    draw_prediction(prediction, written["picture"])
    return prediction, written
