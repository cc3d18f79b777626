"""Make the example clips of the Space, `spaces_demo/examples/*.mp4`, from one portrait.

    python benchmarks/space_examples.py

The portrait is NASA's of Eileen Collins. Its mouth is bent by a few pixels, it leaves the picture,
and it appears twice.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from mma_mrnnet.cli.demo import astronaut
from mma_mrnnet.faces.detection import Detection, FaceDetector
from mma_mrnnet.video.writing import write_video

FOLDER = Path(__file__).resolve().parents[1] / "spaces_demo" / "examples"
FPS = 15
SECONDS = 8
WIDTH, HEIGHT = 480, 360


def bent(photo: np.ndarray, face: Detection, down: float) -> np.ndarray:
    """Draw the corners of the mouth down and in, by `down` (0 to 1) of a sixth of the face."""
    rows, columns = np.mgrid[: photo.shape[0], : photo.shape[1]].astype(np.float32)
    corners = np.asarray(face.landmarks, np.float32)[3:5]
    middle = corners.mean(0)
    reach = float(np.linalg.norm(corners[0] - corners[1])) / 2
    moved_x, moved_y = columns.copy(), rows.copy()
    for x, y in corners:
        weight = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (0.6 * reach) ** 2))
        moved_y -= down * 0.55 * reach * weight
        moved_x += down * 0.35 * np.sign(x - middle[0]) * reach * weight
    return cv2.remap(photo, moved_x, moved_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def framed(photo: np.ndarray, zoom: float, focus: tuple[float, float]) -> np.ndarray:
    """Enlarge the photo around `focus`: (HEIGHT, WIDTH, 3)."""
    matrix = np.array(
        [[zoom, 0, WIDTH / 2 - zoom * focus[0]], [0, zoom, HEIGHT / 2 - zoom * focus[1]]]
    )
    return cv2.warpAffine(
        photo, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE
    )


def frames(draw: Callable[[float], np.ndarray]) -> Iterator[np.ndarray]:
    """Call `draw` with the time of each frame, in seconds."""
    return (draw(number / FPS) for number in range(FPS * SECONDS))


def main() -> None:
    """Write the clips."""
    photo = astronaut()
    (face,) = FaceDetector()(photo)
    x, y, width, height = face.box
    centre = (x + width / 2, y + height / 2)

    def smile(time_s: float) -> np.ndarray:
        down = 0.5 + 0.5 * np.cos(2 * np.pi * time_s / SECONDS)
        return framed(bent(photo, face, down), 1.1, (centre[0], centre[1] + 30))

    def leaves(time_s: float) -> np.ndarray:
        away = float(
            np.clip(1.6 - abs(time_s - SECONDS / 2) * 0.8, 0, 1)
        )  # out of the picture around the middle
        return framed(photo, 1.1, (centre[0], centre[1] + 30 + 330 * away))

    def two(time_s: float) -> np.ndarray:
        sway = 8 * np.sin(2 * np.pi * time_s / SECONDS)
        other = bent(photo, face, 0.5 - 0.5 * np.cos(4 * np.pi * time_s / SECONDS))[:, ::-1]
        near = framed(photo, 1.2, (centre[0] + 75, centre[1] + 20))[:, : WIDTH // 2]
        mirrored = photo.shape[1] - centre[0]
        far = framed(other, 0.8, (mirrored - 150 + sway, centre[1] + 40))[:, WIDTH // 2 :]
        return np.hstack([near, far])

    FOLDER.mkdir(exist_ok=True)
    for name, draw in (("a_smile", smile), ("face_leaves", leaves), ("two_people", two)):
        write_video(FOLDER / f"{name}.mp4", frames(draw), FPS)


if __name__ == "__main__":
    main()
