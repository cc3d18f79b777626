"""Drawn faces whose geometry follows the action units: training pixels without photographs.

They are cartoons: a model trained on them has seen no person. Geometry, strengths and looks
are our choice. Coordinates are pixels of a crop of `SIZE`; other sizes scale them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from datasets import Dataset, DatasetInfo
from numpy.typing import NDArray

from mma_mrnnet.features.records import action_unit_column, frame_features
from mma_mrnnet.model.configuration_mma_mrnnet import MMAConfig
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, NO_CLASS
from mma_mrnnet.model.priors import ACTION_UNIT_PRIOR
from mma_mrnnet.results import Provenance
from mma_mrnnet.synthetic.display import EXPRESSION_CIRCUMPLEX

PROVENANCE = Provenance("drawn", "apache-2.0", made_up=True, labels="constructed")

Color = tuple[float, float, float]
Point = tuple[float, float]
Points = NDArray[np.float64]

SIZE = MMAConfig().image_size
CENTRE_X = SIZE / 2  # axis of the face: a shape with side -1 is mirrored on it

_SUBPIXEL = 4  # fractional bits of cv2's fixed-point coordinates
_OVERSAMPLING = 2
_MIRROR = np.array([[-1.0, 0.0, 2 * CENTRE_X], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


# Canvas ------------------------------------------------------------------------------------------


class Canvas:
    """A background to draw one posed face on.

    Args:
        size: side of the finished image in pixels.
        skin: RGB; determines shadow, folds and glow of the skin.
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
        self.pixel = size * _OVERSAMPLING / SIZE  # device pixels per template pixel
        right = pose * self.pixel * 2**_SUBPIXEL
        self._poses = {
            side: (np.ascontiguousarray(pose[:, :2].T), pose[:, 2] + 0.5)
            for side, pose in ((1, right), (-1, right @ _MIRROR))
        }
        self.skin = skin
        red, green, blue = skin
        self.shadow: Color = (0.80 * red, 0.80 * green, 0.80 * blue)
        self.fold: Color = (0.55 * red, 0.55 * green, 0.55 * blue)
        self.glow: Color = (_lighten(red), _lighten(green), _lighten(blue))

    def _place(self, points: Points, side: int) -> NDArray[np.int32]:
        turn, shift = self._poses[side]
        return (points @ turn + shift).astype(np.int32)

    def polygon(self, points: Points, color: Color, side: int = 1) -> None:
        """Draw a filled shape from (P, 2) points."""
        cv2.fillPoly(self.pixels, [self._place(points, side)], color, cv2.LINE_AA, _SUBPIXEL)

    def line(self, points: Points, color: Color, width: float, side: int = 1) -> None:
        """Draw an open line through (P, 2) points; `width` is in template pixels."""
        placed, thickness = [self._place(points, side)], max(1, round(width * self.pixel))
        cv2.polylines(self.pixels, placed, False, color, thickness, cv2.LINE_AA, _SUBPIXEL)

    def crease(
        self, start: Point, middle: Point, end: Point, strength: float, side: int = 1
    ) -> None:
        """Draw a wrinkle that darkens with `strength` in [0, 1]; omit a faint one."""
        if strength > 0.1:
            color = blend(self.skin, self.fold, 0.1 + 0.9 * strength)
            self.line(curve(start, middle, end), color, 1.0, side)

    def finish(
        self, light: tuple[float, float], grain: float, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Return (size, size, 3) uint8 with light (across, down) and grain (grey levels)."""
        small = cv2.resize(self.pixels, (self.size, self.size), interpolation=cv2.INTER_AREA)
        along = np.linspace(-1, 1, self.size, dtype=np.float32)
        across, down = np.float32(light[0]) * along, np.float32(light[1]) * along[:, None]
        lit = small * (1 + across + down)[..., None]
        lit = lit + np.float32(grain) * rng.standard_normal(
            (self.size, self.size, 1), dtype=np.float32
        )
        return lit.clip(0, 255).astype(np.uint8)


def _lighten(value: float) -> float:
    return min(1.07 * value + 4, 255.0)


def blend(one: Color, other: Color, share: float) -> Color:
    """Mix two colours linearly; `share` is that of the second."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(one, other, strict=True))
    return red, green, blue


_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)
"""(28, 2) points of the unit circle; the first half is below the centre in an image."""


def ellipse(x: float, y: float, width: float, height: float) -> Points:
    """Return (28, 2) points of an ellipse; `width` and `height` are half axes."""
    return CIRCLE * (width, height) + (x, y)


def curve(start: Point, middle: Point, end: Point, count: int = 10) -> Points:
    """Return (count, 2) points of the quadratic Bezier curve that passes `middle` halfway."""
    return _bezier(count) @ np.array((start, middle, end))


@cache
def _bezier(count: int) -> Points:
    """Return (count, 3) weights of start, halfway point and end in such a curve."""
    t = np.linspace(0, 1, count)
    bend = 2 * t * (1 - t)
    return np.stack([(1 - t) ** 2 - bend / 2, 2 * bend, t**2 - bend / 2], 1)


# Face ------------------------------------------------------------------------------------------

_EYES = ((41.8, 41.4), (70.0, 41.2))
_NOSE = (CENTRE_X, 57.4)
_MOUTH = ((44.4, 73.9), (67.8, 73.8))
_SKINS = (
    (247, 214, 190),
    (232, 190, 160),
    (214, 164, 128),
    (186, 134, 98),
    (146, 98, 68),
    (104, 68, 48),
)
_HAIRS = (
    (32, 26, 24),
    (58, 40, 30),
    (96, 64, 40),
    (150, 108, 62),
    (206, 172, 112),
    (130, 126, 122),
)
_IRISES = ((62, 44, 32), (92, 66, 40), (70, 92, 70), (70, 100, 130))


@dataclass(frozen=True)
class Identity:
    """Looks of one drawn face at rest; lengths in pixels of a 112 crop."""

    skin: Color
    hair: Color
    iris: Color
    background: Color
    lip_tint: float
    width: float
    chin: float
    jaw_width: float
    brow_thickness: float
    brow_height: float
    eye_width: float
    eye_height: float
    nose_width: float
    lip_height: float
    hairline: float
    hair_length: float
    rotation: float
    scale: float
    shift: tuple[float, float]
    light: tuple[float, float]
    grain: float


def sample_identity(rng: np.random.Generator) -> Identity:
    """Sample a person, a light and a small jitter of the pose."""

    def shade(base: Color, spread: float) -> Color:
        red, green, blue = (np.array(base) + spread * rng.standard_normal(3)).clip(10, 252)
        return float(red), float(green), float(blue)

    return Identity(
        skin=shade(_SKINS[rng.integers(len(_SKINS))], 5),
        hair=shade(_HAIRS[rng.integers(len(_HAIRS))], 5),
        iris=shade(_IRISES[rng.integers(len(_IRISES))], 6),
        background=shade((150, 155, 165), 25),
        lip_tint=rng.uniform(0.25, 0.7),
        width=rng.uniform(32, 36),
        chin=rng.uniform(95, 99),
        jaw_width=rng.uniform(0.62, 0.84),
        brow_thickness=rng.uniform(1.8, 3.4),
        brow_height=rng.uniform(-0.7, 0.7),
        eye_width=rng.uniform(6.4, 7.4),
        eye_height=rng.uniform(2.5, 3.1),
        nose_width=rng.uniform(5.2, 7.0),
        lip_height=rng.uniform(2.2, 3.4),
        hairline=rng.uniform(14, 20),
        hair_length=rng.choice([0.0, 30.0, 58.0, 85.0]),
        rotation=rng.normal(0, 2.0),
        scale=rng.normal(1, 0.015),
        shift=(rng.normal(0, 0.6), rng.normal(0, 0.6)),
        light=(rng.uniform(-0.16, 0.16), rng.uniform(-0.12, 0.04)),
        grain=rng.uniform(1, 4),
    )


def draw_face(
    action_units: NDArray[np.floating], *, rng: np.random.Generator, size: int = SIZE
) -> NDArray[np.uint8]:
    """Draw (size, size, 3) uint8 RGB: a face with the given action units, aligned to the template.

    Person, light, pose and grain come only from `rng`: equal generators give the same person.
    `action_units` are (17,) in [0, 1], in the order of `ACTION_UNITS`; other values, or a size
    below 16, raise ValueError.
    """
    intensities = np.asarray(action_units, dtype=float)
    if (
        intensities.shape != (len(ACTION_UNITS),)
        or not ((intensities >= 0) & (intensities <= 1)).all()
    ):
        raise ValueError(
            f"action_units must be {len(ACTION_UNITS)} intensities in [0, 1]; got {action_units!r}"
        )
    if size < 16:
        raise ValueError(f"size must be at least 16; got {size}")
    identity = sample_identity(rng)
    units = dict(zip(ACTION_UNITS, intensities.tolist(), strict=True))
    turn = cv2.getRotationMatrix2D((CENTRE_X, 55.0), identity.rotation, identity.scale)
    pose = np.asarray(turn, dtype=np.float64)  # (2, 3)
    pose[:, 2] += np.array(identity.shift)
    canvas = Canvas(size, identity.skin, identity.background, pose)
    _draw_head(canvas, identity, units)
    _draw_nose_and_cheeks(canvas, identity, units)
    _draw_mouth(canvas, identity, units)
    for side in (-1, 1):
        _draw_eye(canvas, identity, units, side)
        _draw_brow(canvas, identity, units, side)
    _draw_forehead(canvas, units)
    return canvas.finish(identity.light, identity.grain, rng)


def _draw_head(canvas: Canvas, identity: Identity, units: dict[int, float]) -> None:
    """Draw hair, neck, ears and outline; 26 drops the jaw, 17 raises the chin."""
    x, width = CENTRE_X, identity.width
    chin = identity.chin + 6.5 * units[26] - 1.2 * units[17]
    canvas.polygon(ellipse(x, 40, width + 4.5, 37), identity.hair)
    if identity.hair_length:
        bottom = 40 + identity.hair_length * 0.8
        far, near = width + 4.5, width + 3
        sides = np.array([(x - far, 38), (x + far, 38), (x + near, bottom), (x - near, bottom)])
        canvas.polygon(sides, identity.hair)
    neck = np.array(
        [(x - 17, 80), (x + 17, 80), (x + 19, 108), (x + 40, 118), (x - 40, 118), (x - 19, 108)]
    )
    canvas.polygon(neck, canvas.shadow)
    for side in (-1, 1):
        canvas.polygon(ellipse(x + side * (width + 0.5), 49, 4, 8), canvas.shadow)
    # Below the ears the outline narrows to the chin; a wide jaw makes it squarer.
    lower, upper = CIRCLE[:15], CIRCLE[14:]
    jaw = np.stack(
        [np.sign(lower[:, 0]) * np.abs(lower[:, 0]) ** identity.jaw_width, lower[:, 1]], 1
    )
    outline = np.concatenate([jaw * (width, chin - 48), upper * (width, 52 - identity.hairline)])
    canvas.polygon(outline + np.array((x, 48)), identity.skin)
    left = curve((x - width - 0.5, 44), (x - width * 0.62, 20), (x, identity.hairline + 2))
    right = curve((x, identity.hairline + 2), (x + width * 0.62, 20), (x + width + 0.5, 44))
    fringe = np.concatenate(
        [left, right, curve((x + width + 3, 40), (x, 2), (x - width - 3, 40), 16)]
    )
    canvas.polygon(fringe, identity.hair)


def _draw_nose_and_cheeks(canvas: Canvas, identity: Identity, units: dict[int, float]) -> None:
    """Draw nose and cheeks: 9 lifts the nose, 6 raises the cheeks, 9 to 12 deepen the folds."""
    x, y = CENTRE_X, _NOSE[1] - 2.2 * units[9] - 0.6 * units[10]
    wing = x + identity.nose_width
    raised = max(units[6], 0.5 * units[12])
    fold = max(units[10], 0.8 * units[9], 0.75 * units[12])
    glow = blend(canvas.skin, canvas.glow, raised)
    fold_middle = (wing + 6 + units[12] + 1.2 * units[10], y + 3)
    fold_end = (x + 15.5 + 3.5 * units[12], _NOSE[1] + 12.5 - 2 * units[12])
    for side in (-1, 1):
        if raised > 0.05:
            canvas.polygon(ellipse(x + 18.5, 57 - 2.5 * units[6], 8.0, 5.0), glow, side)
        canvas.crease((x + 8.5, 51), (x + 15, 53 - units[6]), (x + 23, 49), units[6], side)
        canvas.crease((wing + 1.5, y - 1), fold_middle, fold_end, fold, side)
        canvas.crease(
            (wing + 1.5, y - 1), (wing + 4, y + 1), (wing + 6, y + 4), 0.8 * units[11], side
        )
        bend = (wing + 0.6 * units[9], y)
        canvas.line(curve((wing - 1.5, y - 3), bend, (wing - 2.5, y + 2)), canvas.fold, 1.0, side)
        canvas.polygon(ellipse(x + 2.6, y + 1.9, 1.3, 0.8), canvas.fold, side)
        for row in (43.4, 46.8, 50.2):
            canvas.crease((x + 1, row), (x + 3.5, row + 0.3), (x + 6, row + 2.4), units[9], side)
    canvas.line(curve((x - 2.4, y + 2.6), (x, y + 3.3), (x + 2.4, y + 2.6)), canvas.shadow, 1.0)
    canvas.line(curve((x - 3.5, 42.4), (x - 2.6, 48.4), (x - 3.4, y - 3)), canvas.shadow, 0.8)


@dataclass(frozen=True)
class _Mouth:
    """Position of the lips: right corner, and heights at the middle of the mouth."""

    corner_x: float
    corner_y: float
    gap: float
    top: float
    inner_top: float
    inner_bottom: float
    bottom: float


def _shape_mouth(identity: Identity, units: dict[int, float]) -> _Mouth:
    """Place the lips: 12, 15, 20 move the corners; 25, 26 open, 23, 24 tighten, 10, 17 push up."""
    x, y = _MOUTH[1][0], (_MOUTH[0][1] + _MOUTH[1][1]) / 2
    tight = max(units[24], 0.8 * units[23])
    thickness = identity.lip_height * (1 - 0.62 * tight - 0.25 * units[20])
    gap = (3.4 * units[25] + units[26] * (1.4 + 5.0 * units[25])) * (1 - 0.9 * units[24])
    pushed = 2.2 * units[17] * (1 - 0.6 * units[26])
    raised = 2.6 * units[10] + 0.5 * units[9]
    middle = y + 0.2 - pushed + 0.7 * units[12]
    inner_top, inner_bottom = middle - raised - 0.25 * gap, middle - raised + 0.75 * gap
    return _Mouth(
        corner_x=x + 3.4 * units[12] + 4.2 * units[20] - 1.6 * units[23] - 0.8 * units[24],
        corner_y=y - 4.0 * units[12] + 4.0 * units[15] + 1.0 * units[20] + 1.2 * units[26],
        gap=gap,
        top=inner_top - thickness,
        inner_top=inner_top,
        inner_bottom=inner_bottom,
        bottom=inner_bottom + 0.5 * raised + 1.2 * thickness * (1 + 0.35 * units[17]),
    )


def _draw_mouth(canvas: Canvas, identity: Identity, units: dict[int, float]) -> None:
    """Draw lips, the gap with the upper teeth, and creases."""
    mouth, x = _shape_mouth(identity, units), CENTRE_X

    def edge(height: float) -> Points:
        left, right = (2 * x - mouth.corner_x, mouth.corner_y), (mouth.corner_x, mouth.corner_y)
        return curve(left, (x, height), right, 16)

    top, inner_top, inner_bottom = edge(mouth.top), edge(mouth.inner_top), edge(mouth.inner_bottom)
    top[7:9, 1] += 0.7  # the cupid's bow
    lip = blend(identity.skin, (164, 62, 68), 0.15 + 0.8 * identity.lip_tint)
    canvas.polygon(np.concatenate([top, edge(mouth.bottom)[::-1]]), lip)
    if mouth.gap > 0.4:
        canvas.polygon(np.concatenate([inner_top, inner_bottom[::-1]]), (58, 22, 26))
        teeth = edge(mouth.inner_top + min(0.6 * mouth.gap, 2.6))
        canvas.polygon(np.concatenate([inner_top[2:-2], teeth[2:-2][::-1]]), (238, 232, 222))
    else:
        canvas.line(inner_top, blend(lip, (50, 20, 22), 0.7), 0.9)
    _draw_mouth_creases(canvas, mouth, units)


def _draw_mouth_creases(canvas: Canvas, mouth: _Mouth, units: dict[int, float]) -> None:
    """Draw creases: 15, 20, 24 beside the corners; 23, 24 above the lips; 17 on the chin."""
    x, corner, y, top, bottom = CENTRE_X, mouth.corner_x, mouth.corner_y, mouth.top, mouth.bottom
    chin = bottom + 5.5 + 1.5 * units[26]
    canvas.line(
        curve((x - 5, bottom + 2.2), (x, bottom + 3), (x + 5, bottom + 2.2)), canvas.shadow, 1.0
    )
    canvas.crease((x - 6.5, chin + 2), (x, chin - 0.8), (x + 6.5, chin + 2), units[17])
    canvas.crease((x - 5, chin + 4.6), (x, chin + 1.8), (x + 5, chin + 4.6), units[17])
    canvas.crease((x - 7, top - 0.6), (x, top - 1.6), (x + 7, top - 0.6), 0.7 * units[24])
    canvas.crease((x - 7, bottom + 0.8), (x, bottom + 1.8), (x + 7, bottom + 0.8), 0.7 * units[24])
    for side in (-1, 1):
        canvas.crease(
            (corner + 0.4, y), (corner + 1.8, y + 2.5), (corner + 2, y + 5), units[15], side
        )
        canvas.crease(
            (corner + 2.2, y - 4), (corner + 3.4, y), (corner + 2.2, y + 4), units[20], side
        )
        canvas.crease(
            (corner + 0.6, y - 2.2), (corner + 1.6, y), (corner + 0.6, y + 2.2), units[24], side
        )
        for place in (x + 2.5, x + 6):
            canvas.crease(
                (place, top - 2.2), (place, top - 1.3), (place, top - 0.4), units[23], side
            )


def _draw_eye(canvas: Canvas, identity: Identity, units: dict[int, float], side: int) -> None:
    """Draw an eye: 5 opens it, 7 (less: 6, 9) raises the lower lid, 6 adds crow's feet."""
    x, y = (2 * CENTRE_X - _EYES[0][0], _EYES[0][1]) if side == -1 else _EYES[1]
    half, height = identity.eye_width, identity.eye_height
    squint = max(units[7], 0.6 * units[6], 0.5 * units[9])
    lower = y + height * 0.85 - 2.0 * squint + 0.3 * units[5]
    inner, outer = (x - half, y + 0.8), (x + half, y - 0.2)
    top = curve(inner, (x, y - height - 2.0 * units[5] + squint * (1 - units[5])), outer, 14)
    bottom = curve(inner, (x, lower), outer, 14)
    canvas.polygon(np.concatenate([top, bottom[::-1]]), (240, 238, 234), side)
    canvas.polygon(_hold_between(ellipse(x, y - 0.2, 3.1, 3.1), top, bottom), identity.iris, side)
    canvas.polygon(_hold_between(ellipse(x, y - 0.2, 1.5, 1.5), top, bottom), (14, 12, 12), side)
    canvas.polygon(
        _hold_between(ellipse(x + side, y - 1.2, 0.6, 0.6), top, bottom), (250, 250, 250), side
    )
    canvas.line(top, (36, 26, 24), 1.3, side)
    canvas.line(bottom, canvas.fold, 0.7, side)
    canvas.line(top[2:-1] - (0, 1.9 - 0.9 * units[5]), canvas.shadow, 0.8, side)
    canvas.crease((x - 5, lower + 2), (x, lower + 3.2), (x + 6, lower + 1.4), units[7], side)
    start = x + half + 1.6
    for spread in (-1, 0, 1):
        middle, end = (start + 2, y + 1 + 2.3 * spread), (start + 4, y + 0.6 + 3.6 * spread)
        canvas.crease((start, y + 1 + 1.2 * spread), middle, end, units[6], side)


def _hold_between(points: Points, top: Points, bottom: Points) -> Points:
    """Clip the points between the two lids."""
    heights = points[:, 1].clip(np.interp(points[:, 0], *top.T), np.interp(points[:, 0], *bottom.T))
    return np.stack([points[:, 0], heights], 1)


def _draw_brow(canvas: Canvas, identity: Identity, units: dict[int, float], side: int) -> None:
    """Draw a brow: 1 raises the inner end, 2 the outer half; 4 lowers it and narrows the gap."""
    x, y = CENTRE_X, 33.0 + identity.brow_height
    down = 3.2 * units[4] + 1.4 * units[9]
    inner = (x + 5.6 - 2.2 * units[4], y - 4.4 * units[1] + down)
    middle = (x + 14.0, y - 2.2 - 1.6 * units[1] - 3.2 * units[2] + 0.75 * down)
    outer = (x + 22.6, y + 0.6 - 4.4 * units[2] + 0.35 * down)
    spine = curve(inner, middle, outer, 12)
    half = identity.brow_thickness / 2 * np.linspace(1.0, 0.45, 12)[:, None] * (0.0, 1.0)  # (12, 2)
    color = blend(identity.hair, (20, 16, 14), 0.35)
    canvas.polygon(np.concatenate([spine - half, (spine + half)[::-1]]), color, side)


def _draw_forehead(canvas: Canvas, units: dict[int, float]) -> None:
    """Draw forehead lines: 1 in the middle, 2 at the sides, 4 between the brows."""
    x = CENTRE_X
    for y in (26.5 - 0.6 * units[1], 23.1 - 0.6 * units[1]):
        canvas.crease((x - 9, y - 0.4), (x, y + 0.6), (x + 9, y - 0.4), units[1])
        for side in (-1, 1):
            canvas.crease((x + 10, y - 0.2), (x + 16, y - 2.2), (x + 22, y + 0.8), units[2], side)
    for side in (-1, 1):
        canvas.crease((x + 1.8, 31), (x + 2.4, 34), (x + 1.6, 37.5), units[4], side)


# Labelled rows -----------------------------------------------------------------------------------

ONE_KIND = (
    ("values", "drawn-valence-arousal"),
    ("class", "drawn-expressions"),
    ("units", "drawn-action-units"),
)
"""(kind of label, source name) of rows with one kind of label each, in turn."""


def drawn_faces(count: int, *, seed: int, size: int = SIZE, one_kind: bool = False) -> Dataset:
    """Draw faces with partial labels, like the corpora of stage 1.

    Three in five rows show a basic expression or neutral (Du et al. 2014, Table 1; units that
    are not prototypical appear with their published share). The others show one or two random
    units and have only unit labels. Of the expressions, 25 % have only unit labels, 30 % only
    the class, 30 % only valence and arousal, and the rest all three (our choice), so that
    training must mask labels.

    `one_kind` gives the same faces one kind of label each, in turn, and `source` names the
    kind. Then only rows with unit labels show anything but an expression. A longer data set
    starts with the rows of a shorter one. A negative `count` or `seed` raises ValueError.

    Columns: image, subject, source, valence, arousal (NaN where unlabelled), expression (class
    id in the order of `EXPRESSIONS`; -100 where unlabelled), au01 ... au26 (intensities in
    [0, 1]; NaN where unlabelled).
    """
    features = frame_features()
    rows = list(draw_rows(count, seed=seed, size=size, one_kind=one_kind))
    columns = {name: [row[name] for row in rows] for name in features}
    description = "Drawn faces, no photographs. expression: " + ", ".join(EXPRESSIONS)
    info = DatasetInfo(description=description, features=features)
    return Dataset.from_dict(columns, features=features, info=info)


def draw_rows(count: int, *, seed: int, size: int = SIZE, one_kind: bool = False) -> Iterator[dict]:
    """Yield the rows of `drawn_faces`: images as PNG, numbers rounded to float32."""
    if count < 0 or seed < 0:
        raise ValueError(f"count and seed must be at least 0; got {count} and {seed}")
    unit_columns = [action_unit_column(unit) for unit in ACTION_UNITS]
    kinds = ONE_KIND if one_kind else ((None, "drawn"),)
    for index in range(count):
        yield _draw_row(index, seed, size, unit_columns, *kinds[index % len(kinds)])


def _draw_row(
    index: int, seed: int, size: int, unit_columns: list[str], kind: str | None, source: str
) -> dict:
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    row: dict = dict.fromkeys(("valence", "arousal", *unit_columns), np.nan)
    row |= {"subject": f"drawn-{seed}-{index:06d}", "source": source, "expression": NO_CLASS}
    if rng.random() < 0.6 or kind in ("values", "class"):
        expression, strength = int(rng.integers(len(EXPRESSIONS))), rng.uniform(0.45, 1.0)
        units = _sample_expression_units(EXPRESSIONS[expression], strength, rng)
        labelled = rng.choice(["units", "class", "values", "all"], p=[0.25, 0.3, 0.3, 0.15])
        labelled = kind or labelled  # always sampled, so that labels do not affect the face
        if labelled in ("class", "all"):
            row["expression"] = expression
        if labelled in ("values", "all"):
            valence, arousal = EXPRESSION_CIRCUMPLEX[EXPRESSIONS[expression]]
            row["valence"] = float(np.float32(strength * valence))
            row["arousal"] = float(np.float32(strength * arousal))
    else:
        units, labelled = _sample_units(rng), "units"
    if labelled in ("units", "all"):
        row |= dict(zip(unit_columns, units.astype(np.float32).tolist(), strict=True))
    image = draw_face(units, rng=rng, size=size)
    encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()  # OpenCV writes BGR
    return row | {"image": {"bytes": encoded, "path": None}}


def _sample_expression_units(
    expression: str, strength: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Sample (17,) intensities of the expression, with traces of other units."""
    shares = np.array([ACTION_UNIT_PRIOR[expression].get(unit, 0.0) for unit in ACTION_UNITS])
    shown = rng.random(len(ACTION_UNITS)) < shares
    display = strength * rng.uniform(0.75, 1.0, shown.shape)
    return np.where(shown, display, rng.uniform(0, 0.08, shown.shape))


def _sample_units(rng: np.random.Generator) -> NDArray[np.float64]:
    """Sample (17,) intensities with one or two visible units."""
    units = np.zeros(len(ACTION_UNITS))
    chosen = rng.choice(len(ACTION_UNITS), size=rng.integers(1, 3), replace=False)
    units[chosen] = rng.uniform(0.3, 1.0, len(chosen))
    return units
