"""The canvas that faces are drawn on: antialiased shapes in template coordinates, posed, lit and grained."""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[float, float, float]
Point = tuple[float, float]
Points = NDArray[np.float64]

SIZE = 112
"""Coordinates are pixels of a crop of this size; other sizes scale them."""

CENTRE_X = 56.0
"""The face's axis: side -1 of a shape is its mirror image on it."""

_SUBPIXEL = 4  # bits of cv2's fixed-point coordinates
_OVERSAMPLING = 2
_MIRROR = np.array([[-1.0, 0.0, 2 * CENTRE_X], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


class Canvas:
    """A background to draw one posed face on.

    Args:
        size: height and width of the finished image in pixels.
        skin: RGB; shadow, folds and glow of the skin follow from it.
        background: RGB.
        pose: (2, 3) affine map in template coordinates.
    """

    def __init__(
        self, size: int, skin: Color, background: Color, pose: NDArray[np.floating]
    ) -> None:
        self.size = size
        self.pixels = np.empty((size * _OVERSAMPLING, size * _OVERSAMPLING, 3), np.uint8)
        cv2.rectangle(
            self.pixels,
            (0, 0),
            (size * _OVERSAMPLING, size * _OVERSAMPLING),
            background,
            cv2.FILLED,
        )
        self.pixel = size * _OVERSAMPLING / SIZE  # device pixels of one template pixel
        right = pose * self.pixel * 2**_SUBPIXEL
        self._poses = {
            side: (np.ascontiguousarray(pose[:, :2].T), pose[:, 2] + 0.5)
            for side, pose in ((1, right), (-1, right @ _MIRROR))
        }
        self.skin = skin
        self.shadow = tuple(0.80 * value for value in skin)
        self.fold = tuple(0.55 * value for value in skin)
        self.glow = tuple(min(1.07 * value + 4, 255.0) for value in skin)

    def _place(self, points: Points, side: int) -> NDArray[np.int32]:
        turn, shift = self._poses[side]
        return (points @ turn + shift).astype(np.int32)

    def polygon(self, points: Points, color: Color, side: int = 1) -> None:
        """A filled shape; `points` is (P, 2)."""
        cv2.fillPoly(self.pixels, [self._place(points, side)], color, cv2.LINE_AA, _SUBPIXEL)

    def line(self, points: Points, color: Color, width: float, side: int = 1) -> None:
        """An open line through (P, 2) points, `width` template pixels wide."""
        placed, thickness = [self._place(points, side)], max(1, round(width * self.pixel))
        cv2.polylines(self.pixels, placed, False, color, thickness, cv2.LINE_AA, _SUBPIXEL)

    def crease(
        self, start: Point, middle: Point, end: Point, strength: float, side: int = 1
    ) -> None:
        """A wrinkle that darkens with its strength in [0, 1]; none where that is slight."""
        if strength > 0.1:
            color = blend(self.skin, self.fold, 0.1 + 0.9 * strength)
            self.line(curve(start, middle, end), color, 1.0, side)

    def finish(
        self, light: tuple[float, float], grain: float, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """(size, size, 3) uint8: lit from one side (shares, across and down), with grain (grey levels)."""
        small = cv2.resize(self.pixels, (self.size, self.size), interpolation=cv2.INTER_AREA)
        along = np.linspace(-1, 1, self.size, dtype=np.float32)
        lit = (
            small
            * (1 + np.float32(light[0]) * along + np.float32(light[1]) * along[:, None])[..., None]
        )
        lit += np.float32(grain) * rng.standard_normal((self.size, self.size, 1), dtype=np.float32)
        return lit.clip(0, 255).astype(np.uint8)


def blend(one: Color, other: Color, share: float) -> Color:
    """The colour between two, at `share` of the way to the other."""
    return tuple((1 - share) * a + share * b for a, b in zip(one, other, strict=True))


_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)
"""(28, 2) points of the unit circle; the first half lies below its centre in a picture."""


def ellipse(x: float, y: float, width: float, height: float) -> Points:
    """(28, 2) points of an ellipse; `width` and `height` are its half axes."""
    return CIRCLE * (width, height) + (x, y)


def curve(start: Point, middle: Point, end: Point, count: int = 10) -> Points:
    """(count, 2) points of the quadratic Bezier curve that passes through `middle` half way."""
    return _bezier(count) @ np.array((start, middle, end))


@cache
def _bezier(count: int) -> Points:
    """(count, 3) shares of the start, the half-way point and the end in a quadratic Bezier curve."""
    t = np.linspace(0, 1, count)
    bend = 2 * t * (1 - t)
    return np.stack([(1 - t) ** 2 - bend / 2, 2 * bend, t**2 - bend / 2], 1)
