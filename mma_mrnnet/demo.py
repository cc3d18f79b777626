"""A clip made from a public-domain photo, the whole job on it, and a picture of the result. Needs the `demo` extra."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from mma_mrnnet.data.faces import FaceDetector, align_face
from mma_mrnnet.data.video import read_frames, write_video
from mma_mrnnet.model.labels import EXPRESSIONS
from mma_mrnnet.prediction import VideoPrediction, clip_table, predict_video, write_table

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


def camera_move(photo: np.ndarray, frames: int, size: tuple[int, int] = (640, 480)) -> Iterator[np.ndarray]:
    """A slow zoom onto the upper middle of a photo, as (height, width, 3) uint8 RGB frames of `size`."""
    width, height = size
    for number in range(frames):
        progress = number / max(frames - 1, 1)
        zoom = height / photo.shape[0] * (1.0 + 0.4 * progress)
        focus = np.array([photo.shape[1] * 0.45, photo.shape[0] * (0.5 - 0.15 * progress)])
        matrix = np.array([[zoom, 0, width / 2 - zoom * focus[0]], [0, zoom, height / 2 - zoom * focus[1]]])
        yield cv2.warpAffine(photo, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


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
    first = next(iter(read_frames(written["clip"])))
    draw_prediction(prediction, first.image, written["picture"])
    return prediction, written


def figure_class() -> type:
    """Matplotlib's `Figure`, which draws without a display.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("pictures need the demo extra: pip install 'mma-mrnnet[demo]'") from error
    return Figure


def draw_prediction(prediction: VideoPrediction, photo: np.ndarray, path: Path) -> None:
    """A picture of a result: the aligned face, the intensities, and what the frames showed over time.

    Args:
        prediction: of a clip with a face.
        photo: (H, W, 3) uint8 RGB, a frame whose face is shown.
        path: a .png file, written beside its target and renamed.

    Raises:
        ValueError: matplotlib is not installed.
    """
    figure = figure_class()(figsize=(11, 3.6), dpi=110, layout="constrained")
    face_axes, bar_axes, unit_axes = figure.subplots(1, 3, width_ratios=(1, 1.5, 2.4))

    found = FaceDetector()(photo)
    face_axes.imshow(align_face(photo, found[0].landmarks))
    face_axes.set_axis_off()
    face_axes.set_title("what the extractor sees", fontsize=9)

    rows = prediction.ranked() if prediction.calibrated else list(prediction.intensities.items())
    names, values = zip(*rows[::-1], strict=True)
    bars = bar_axes.barh(names, values, color="#0072B2")
    bar_axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    bar_axes.set_xlim(0, 1.12)
    bar_axes.spines[["top", "right"]].set_visible(False)
    source = "learnt from a simulator" if prediction.simulated else "learnt from reports"
    scale = "relative within the clip" if prediction.relative else "one scale for all clips"
    bar_axes.set_title(f"reaction intensities ({source},\n{scale})", fontsize=9)

    frames = prediction.frames
    shown = [*EXPRESSIONS, *(name for name in frames.columns if name.startswith("AU"))]
    heat = unit_axes.imshow(
        frames[shown].to_numpy(float).T,
        aspect="auto",
        vmin=0,
        vmax=1,
        cmap="viridis",
        extent=(0, prediction.duration_s, len(shown) - 0.5, -0.5),
        interpolation="nearest",
    )
    labels = [f"{name} (prior only)" if name in prediction.prior_only else name for name in shown]
    unit_axes.set_yticks(range(len(shown)), labels, fontsize=6)
    unit_axes.set_xlabel("seconds", fontsize=8)
    unit_axes.set_title("expressions and action units, frame by frame", fontsize=9)
    figure.colorbar(heat, ax=unit_axes, label="probability")
    staging = path.with_name(f".{path.name}.tmp.png")
    try:
        figure.savefig(staging)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
