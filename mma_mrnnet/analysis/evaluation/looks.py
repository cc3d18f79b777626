"""How crops differ, and what is done to them: head pose, blur and colour measured, changed copies made."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from mma_mrnnet.faces.detection import FaceDetector

Change = Callable[[np.ndarray], np.ndarray]

NOSE_DEPTH = 0.5
"""How far a nose stands out, in distances between the eyes: what turns its offset into degrees (our assumption)."""

COLOURLESS = 2.0
"""Mean distance between a pixel's largest and smallest channel, of 255, below which a crop is grey."""

MIRROR = "mirror"


@dataclass(frozen=True)
class Looks:
    """What can be measured of N crops without labels.

    Attributes:
        yaw: (N,) estimated degrees to either side; NaN where no face was found.
        sharpness: (N,) variance of the Laplacian.
        colour: (N,) mean distance between a pixel's largest and smallest channel, of 255.
    """

    yaw: Tensor
    sharpness: Tensor
    colour: Tensor


def looks_of(crop: np.ndarray, detector: FaceDetector) -> tuple[float, float, float]:
    """Yaw, sharpness and colour of one (H, W, 3) uint8 crop."""
    found = detector(crop)
    yaw = yaw_of(found[0].landmarks) if found else float("nan")
    sharpness = float(cv2.Laplacian(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())
    colour = float((crop.max(2).astype(np.float32) - crop.min(2)).mean())
    return yaw, sharpness, colour


def yaw_of(landmarks: np.ndarray) -> float:
    """Estimated degrees by which a head is turned to either side.

    Where the nose's tip stands along the line through the eyes: in the middle of a frontal face, and off it by
    `NOSE_DEPTH` times the tangent of the angle, in distances between the eyes, which themselves draw together.

    Args:
        landmarks: (5, 2) in the order of `faces.TEMPLATE`.
    """
    left, right, nose = landmarks[:3]
    axis = right - left
    offset = abs(float((nose - left) @ axis / max(float(axis @ axis), 1e-9)) - 0.5)
    return float(np.degrees(np.arctan(offset / NOSE_DEPTH)))


def groups_of(looks: Looks, sources: np.ndarray) -> dict[str, dict[str, Tensor]]:
    """(N,) bool of each named group: three of estimated pose, thirds of blur within each source, grey or coloured.

    Args:
        looks: of N crops.
        sources: (N,) their sources.
    """
    yaw = looks.yaw
    blur = _thirds(looks.sharpness, sources)
    return {
        "pose": {
            "turned by less than 10 degrees": yaw < 10,
            "10 to 20 degrees": (yaw >= 10) & (yaw < 20),
            "20 degrees or more": yaw >= 20,
        },
        "blur": {
            name: blur == third
            for third, name in enumerate(("blurred third", "middle third", "sharp third"))
        },
        "grey": {"grey": looks.colour < COLOURLESS, "coloured": looks.colour >= COLOURLESS},
    }


def _thirds(values: Tensor, sources: np.ndarray) -> Tensor:
    """(N,) 0, 1 or 2: where a value stands among those of its source."""
    thirds = torch.zeros(len(values), dtype=torch.long)
    for source in np.unique(sources):
        own = torch.from_numpy(sources == source)
        rank = values[own].argsort(stable=True).argsort()
        thirds[own] = rank * 3 // max(int(own.sum()), 1)
    return thirds


def _smaller(side: int) -> Change:
    def change(crop: np.ndarray) -> np.ndarray:
        height, width = crop.shape[:2]
        smaller = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        return cv2.resize(smaller, (width, height), interpolation=cv2.INTER_LINEAR)

    return change


def _compressed(quality: int) -> Change:
    def change(crop: np.ndarray) -> np.ndarray:
        done, data = cv2.imencode(".jpg", crop[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        assert done
        return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])

    return change


def _grey(crop: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def _turned(degrees: float) -> Change:
    def change(crop: np.ndarray) -> np.ndarray:
        height, width = crop.shape[:2]
        turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
        return cv2.warpAffine(crop, turn, (width, height), flags=cv2.INTER_LINEAR)

    return change


CHANGES: dict[str, Change] = {
    MIRROR: lambda crop: np.ascontiguousarray(crop[:, ::-1]),
    "resolution 56": _smaller(56),
    "resolution 28": _smaller(28),
    "jpeg 50": _compressed(50),
    "jpeg 20": _compressed(20),
    "grey": _grey,
    "turned 10": _turned(10.0),
}
"""What is done to crops that should not change what is seen in them: (H, W, 3) uint8 RGB to the same shape."""
