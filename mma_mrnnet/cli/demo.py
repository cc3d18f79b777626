"""`mma-mrnnet demo`: prediction on a public-domain photo. Needs the `demo` extra."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mma_mrnnet.cli.options import Threads, open_model, option, say
from mma_mrnnet.cli.outputs import print_notes, print_prediction

if TYPE_CHECKING:
    import numpy as np

    from mma_mrnnet.prediction import VideoPrediction

EXAMPLES = """example:
  mma-mrnnet demo --out mma_mrnnet_demo"""

FPS = 25
DURATION_S = 6


def show_demo(
    out: Annotated[Path, option("FOLDER", "Folder for the clip and the results.")] = Path(
        "mma_mrnnet_demo"
    ),
    threads: Threads = 1,
) -> int:
    """Make a short clip from a public-domain photo, predict it and write all outputs."""
    engine = open_model(None, None, threads=threads)
    prediction, written = run_demo(out)
    print_prediction(prediction)
    print_notes(engine.facts, with_frames=True)
    for name, path in written.items():
        say(f"wrote {name}: {path}")
    return 0


def astronaut() -> "np.ndarray":
    """Return NASA's portrait of Eileen Collins (public domain): (512, 512, 3) uint8 RGB.

    Raises ValueError if scikit-image is not installed.
    """
    try:
        from skimage.data import astronaut as photo
    except ImportError as error:
        raise ValueError("the demo needs its extra: pip install 'mma-mrnnet[demo]'") from error
    return photo()


def camera_move(
    photo: "np.ndarray", frames: int, size: tuple[int, int] = (640, 480)
) -> Iterator["np.ndarray"]:
    """Yield frames of a slow zoom onto the upper middle of a photo, (h, w, 3) uint8 RGB."""
    import cv2
    import numpy as np

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


def run_demo(folder: Path) -> tuple["VideoPrediction", dict[str, Path]]:
    """Make the clip, predict it, and write all files; return the prediction and paths by kind.

    Files of an earlier demo are replaced. Raises ValueError, before any work, without the extra.
    """
    from mma_mrnnet.prediction import clip_table, predict_video, write_table
    from mma_mrnnet.report.picture import draw_prediction, figure_class
    from mma_mrnnet.video.writing import write_video

    photo = astronaut()
    figure_class()  # fails early if the extra is missing
    folder.mkdir(parents=True, exist_ok=True)
    written = {
        "clip": folder / "astronaut.mp4",
        "result": folder / "result.csv",
        "frames": folder / "frames.csv",
        "picture": folder / "result.png",
    }
    write_video(written["clip"], camera_move(photo, FPS * DURATION_S), FPS)
    prediction = predict_video(written["clip"])
    write_table(clip_table([prediction]), written["result"])
    write_table(prediction.frames, written["frames"])
    draw_prediction(prediction, written["picture"])
    return prediction, written
