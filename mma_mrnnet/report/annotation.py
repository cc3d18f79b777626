"""Draw the results on the frames of a clip: boxes, affect, estimates so far, notes."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from mma_mrnnet.prediction import BOX_NAMES, VideoPrediction
from mma_mrnnet.report.figures import action_unit_columns, expression_names
from mma_mrnnet.video.reading import FrameClock, VideoFrame
from mma_mrnnet.video.sources import local_file
from mma_mrnnet.video.writing import redraw_video

READINGS_PER_S = 2.0  # slow enough to read the text beside a face (our choice)
COLOURS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
)
"""One a person: those of Okabe and Ito that are light enough to stand on black."""

_WHITE, _PANEL, _EMPTY_BAR = (255, 255, 255), (16, 20, 24, 190), (72, 80, 88, 220)
_SMALLEST_TEXT = 11  # pixels
_FINE = 3  # text is drawn at this scale, then reduced, for even spacing of small letters
_LEAST_LIKELY = 0.3  # minimum probability of units and second expressions in a caption
_ABOVE, _BELOW, _RIGHT, _LEFT, _INSIDE = range(5)

Rect = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


def annotate_video(
    predictions: Sequence[VideoPrediction], path: str | os.PathLike[str]
) -> list[str]:
    """Write the clip with the results drawn on it; size, times and sound are kept.

    Boxes are the detector's, smoothed by the median of five frames. The likeliest expressions
    and action units stand beside each box, updated `READINGS_PER_S` times a second; the
    estimates so far stand in a corner, the notes at the bottom. A clip without a face says so.

    Args:
        predictions: the people of one clip, at least one, each with a row for every frame
            (`predict_people(clip, every_frame=True)`).
        path: an .mp4 file, written atomically; not the clip itself.

    Returns:
        Sentences about what was lost or did not fit; usually empty.

    Raises:
        VideoError: the clip can no longer be read, or is not a file or URL.
        ValueError: no predictions, several clips, or rows missing; `path` is not an .mp4, or is
            the clip itself.
    """
    files = {prediction.file for prediction in predictions}
    if len(files) != 1:
        raise ValueError(f"predictions must be of one clip; got {sorted(files)}")
    people = [_Person.of(prediction, number) for number, prediction in enumerate(predictions)]
    targets, notes = list(predictions[0].intensities), _join_notes(predictions)
    painter: _Painter | None = None

    def draw(frame: VideoFrame) -> np.ndarray:
        nonlocal painter
        if painter is None:
            height, width = frame.image.shape[:2]
            painter = _Painter(people, targets, notes, (height, width))
        return painter.paint(frame)

    known = predictions[0].warning or ""
    with local_file(predictions[0].file) as local:  # a URL is fetched again
        lost = [note for note in redraw_video(local.path, path, draw) if note not in known]
    return lost + ([] if painter is None else painter.without_room())


@dataclass
class _Person:
    """What is drawn for one person.

    `boxes` are (N, 4) for every frame of the file, NaN without a face. `captions` are by frame
    number. `running` holds (M, K) estimates at (M,) `running_s`.
    """

    name: str
    colour: tuple[int, int, int]
    boxes: np.ndarray
    captions: dict[int, tuple[str, ...]]
    running_s: np.ndarray
    running: np.ndarray

    @classmethod
    def of(cls, prediction: VideoPrediction, number: int) -> "_Person":
        frames = prediction.frames
        if not np.array_equal(frames["frame"].to_numpy(), np.arange(len(frames))):
            raise ValueError(
                f"{prediction.file}: an annotated clip needs a row for every frame: "
                "predict it with every_frame=True"
            )
        targets = list(prediction.intensities)
        running = prediction.running.reindex(columns=["time_s", *targets]).to_numpy(float)
        return cls(
            name=f"person {prediction.track}",
            colour=COLOURS[number % len(COLOURS)],
            boxes=_smooth(frames[list(BOX_NAMES)]),
            captions=_caption_frames(frames, prediction.prior_only),
            running_s=running[:, 0],
            running=running[:, 1:],
        )

    def running_place(self, time_s: float) -> int | None:
        """Return the number of the estimate at a time; None before the first one."""
        place = int(np.searchsorted(self.running_s, time_s + 1e-3, side="right")) - 1
        return None if place < 0 else place

    def box(self, index: int) -> Rect | None:
        """Return the box in a frame; None without a face, or after the last frame read."""
        if index >= len(self.boxes) or np.isnan(self.boxes[index]).any():
            return None
        x, y, width, height = (round(side) for side in self.boxes[index].tolist())
        return x, y, width, height


class _Painter:
    """Draws on the frames of one clip, in order; `size` is their height and width."""

    def __init__(
        self, people: Sequence[_Person], targets: Sequence[str], notes: str, size: tuple[int, int]
    ) -> None:
        self._height, self._width = size
        self._text = max(round(min(size) / 36), _SMALLEST_TEXT)
        small = max(round(self._text * 0.85), _SMALLEST_TEXT - 1)
        self._font = _load_font(_FINE * self._text)
        self._small = _load_font(_FINE * small)
        self._people, self._targets = people, targets
        self._notes = self._draw_notes(notes)
        shown = [person for person in people if len(person.running)]
        self._corners = self._choose_corners(shown)
        self._without_room = [person.name for person in shown if person.name not in self._corners]
        self._last: dict[tuple[str, str], tuple[Any, np.ndarray]] = {}  # patches to reuse
        self._sides: dict[str, int] = {}  # where each person's caption stood

    def without_room(self) -> list[str]:
        """Return a sentence about the people whose estimates do not fit on the frames."""
        size, names = f"{self._width} x {self._height}", ", ".join(self._without_room)
        return [f"frames of {size} have no room for the estimates of {names}"] if names else []

    def paint(self, frame: VideoFrame) -> np.ndarray:
        """Return the frame, (H, W, 3) uint8 RGB, with everything drawn on it."""
        image = frame.image
        if image.shape[:2] != (self._height, self._width):
            image = cv2.resize(image, (self._width, self._height), interpolation=cv2.INTER_AREA)
        here = [
            (person, box) for person in self._people if (box := person.box(frame.index)) is not None
        ]
        for person, box in here:
            self._outline(image, box, person.colour)
        taken = [
            self._place_panel(image, person, frame.time_s)
            for person in self._people
            if person.name in self._corners
        ]
        taken.append(_blend(image, self._notes, 0, self._height - self._notes.shape[0]))
        for person, box in here:
            others = [other for one, other in here if one is not person]
            lines = (person.name, *person.captions.get(frame.index, ()))
            taken.append(self._place_caption(image, person, lines, box, [*taken, *others]))
        return image

    def _outline(self, image: np.ndarray, box: Rect, colour: tuple[int, int, int]) -> None:
        x, y, width, height = box
        thickness = max(self._text // 8, 2)
        corners = (x, y), (x + width, y + height)
        cv2.rectangle(image, *corners, (0, 0, 0), thickness + 2, cv2.LINE_AA)
        cv2.rectangle(image, *corners, colour, thickness, cv2.LINE_AA)

    # ---- captions

    def _place_caption(
        self,
        image: np.ndarray,
        person: _Person,
        lines: tuple[str, ...],
        box: Rect,
        taken: Sequence[Rect],
    ) -> Rect:
        """Draw a caption beside its face, where it covers least; return its rectangle."""
        patch = self._reuse("caption", person, lines, self._draw_caption)
        side, place = self._free_side(person.name, box, patch.shape, taken)
        self._sides[person.name] = side
        return _blend(image, patch, *place)

    def _free_side(
        self, name: str, box: Rect, shape: tuple[int, ...], taken: Sequence[Rect]
    ) -> tuple[int, tuple[int, int]]:
        """Return the side of a face where a caption covers least, and its position there."""
        x, y, width, height = box
        tall, wide = shape[:2]
        gap = max(self._text // 4, 2)
        places = {
            _ABOVE: (x, y - tall - gap),
            _BELOW: (x, y + height + gap),
            _RIGHT: (x + width + gap, y),
            _LEFT: (x - wide - gap, y),
            _INSIDE: (x, y + height - tall),  # for a face that fills the frame
        }
        last = self._sides.get(name)
        # Try the last side first, so that captions do not jump.
        order = sorted(places, key=lambda side: (side != last, side == _INSIDE))
        found = []
        for rank, side in enumerate(order):
            left = min(max(places[side][0], 0), max(self._width - wide, 0))
            top = min(max(places[side][1], 0), max(self._height - tall, 0))
            rect = left, top, wide, tall
            hidden = sum(_overlap(rect, other) for other in taken)
            # Beside or inside its own face, never across its edge.
            across = 0.0 if side == _INSIDE else _overlap(rect, box)
            found.append((hidden, across, rank, side, (left, top)))
        *_, side, place = min(found)
        return side, place

    def _draw_caption(self, person: _Person, lines: tuple[str, ...]) -> np.ndarray:
        """Return an (h, w, 4) dark label with lines of text, the first in the person's colour."""
        pad = round(self._font.size) // 3
        width = max(round(self._font.getlength(line)) for line in lines) + 2 * pad
        return _draw_lines(lines, self._font, width, 1.25, first_colour=person.colour)

    def _draw_notes(self, notes: str) -> np.ndarray:
        width = _FINE * self._width
        lines = _wrap(notes, self._small, width - 2 * (round(self._small.size) // 3))
        return _draw_lines(lines, self._small, width, 1.35)

    def _reuse(
        self, kind: str, person: _Person, content: Any, draw: Callable[[_Person, Any], np.ndarray]
    ) -> np.ndarray:
        """Return the person's last patch of a kind; draw it again if its content changed."""
        last, patch = self._last.get((kind, person.name), (None, None))
        if patch is None or last != content:
            patch = draw(person, content)
            self._last[kind, person.name] = content, patch
        return patch

    # ---- panels of estimates

    def _row_height(self) -> int:
        return round(1.35 * self._small.size)

    def _panel_size(self) -> tuple[int, int]:
        """Return width and height of a panel before reduction, multiples of `_FINE`."""
        size = round(self._small.size)
        names = max(round(self._small.getlength(name)) for name in self._targets)
        width = min(names, _FINE * self._width // 4) + round(8.5 * size)
        height = self._row_height() * (len(self._targets) + 1) + size
        return -(-width // _FINE) * _FINE, -(-height // _FINE) * _FINE

    def _place_panel(self, image: np.ndarray, person: _Person, time_s: float) -> Rect:
        place = person.running_place(time_s)
        panel = self._reuse("panel", person, place, self._draw_panel)
        return _blend(image, panel, *self._corners[person.name])

    def _draw_panel(self, person: _Person, place: int | None) -> np.ndarray:
        """Return an (h, w, 4) panel of a person's estimates so far, one bar per target."""
        width, height = self._panel_size()
        step, size = self._row_height(), round(self._small.size)
        pad, length = size // 2, 4 * size  # around everything; of a bar
        patch, pen = _new_patch(width, height)
        pen.text((pad, pad // 2), f"{person.name}, so far", person.colour, self._small)
        numbers = width - pad - round(self._small.getlength("0.00"))
        left = numbers - pad - length
        for row, name in enumerate(self._targets):
            top = pad // 2 + step * (row + 1)
            pen.text((pad, top), _shorten(name, self._small, left - 2 * pad), _WHITE, self._small)
            upper, lower = top + step // 6, top + step - step // 6
            pen.rectangle((left, upper, left + length, lower), _EMPTY_BAR)
            value = float("nan") if place is None else float(person.running[place, row])
            if not np.isnan(value):
                end = left + round(length * min(max(value, 0.0), 1.0))
                pen.rectangle((left, upper, end, lower), person.colour)
                pen.text((numbers, top), f"{value:.2f}", _WHITE, self._small)
        return _reduce(patch)

    def _choose_corners(self, people: Sequence[_Person]) -> dict[str, tuple[int, int]]:
        """Return each person's fixed panel position, where it covers least; some may not fit."""
        width, height = (side // _FINE for side in self._panel_size())
        margin = self._text // 2
        bottom = self._height - self._notes.shape[0] - margin
        rows = (bottom - margin) // (height + margin)
        # A panel wider than half of the frame covers too much.
        if not people or rows < 1 or 2 * (width + margin) > self._width:
            return {}
        tops = {margin + row * (height + margin) for row in range(rows)}
        tops |= {bottom - height - row * (height + margin) for row in range(rows)}
        boxes = np.concatenate([person.boxes for person in people])
        boxes = boxes[~np.isnan(boxes).any(1)]  # (M, 4)
        hidden = {
            place: _overlap(place, boxes)
            for left in (margin, self._width - width - margin)
            for top in tops
            for place in [(left, top, width, height)]
        }
        corners: dict[str, tuple[int, int]] = {}
        for person in people:
            middle = float(np.nanmedian(person.boxes[:, 0] + person.boxes[:, 2] / 2))
            order = sorted(
                hidden,
                key=lambda rect: (hidden[rect], abs(rect[0] + width / 2 - middle), rect[1]),
            )
            if order:
                corners[person.name] = order[0][:2]
                hidden = {rect: hidden[rect] for rect in hidden if not _overlap(rect, order[0])}
        return corners


# ---- what is written ----------------------------------------------------------------------------


def _join_notes(predictions: Sequence[VideoPrediction]) -> str:
    """Return the notes without duplicates; a note that is not for everybody names its person."""
    notes = [[prediction.error, *prediction.notes()] for prediction in predictions]
    # People without a result have no notes; the others' notes apply to all.
    results = [each for each in notes if each[0] is None] or notes
    lines = []
    for prediction, each in zip(predictions, notes, strict=True):
        for note in filter(None, each):
            shared = all(note in other for other in results)
            lines.append(note if shared else f"person {prediction.track}: {note}")
    text = "; ".join(dict.fromkeys(lines))
    return text or "intensities of facial reactions, as a model reads them"


def _smooth(boxes: pd.DataFrame) -> np.ndarray:
    """Return (N, 4) medians of five frames around each: less jitter, no delay, jumps stay."""
    smooth = boxes.rolling(5, center=True, min_periods=1).median()
    return smooth.where(boxes.notna()).to_numpy(float)


def _caption_frames(frames: pd.DataFrame, prior_only: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """Return the text beside a face by frame: updated at each tick, held in between."""
    expressions, clock = expression_names(frames), FrameClock(READINGS_PER_S)
    units = [name for name in action_unit_columns(frames) if name not in prior_only]
    captions: dict[int, tuple[str, ...]] = {}
    caption: tuple[str, ...] | None = None
    due = False
    columns = frames[["frame", "time_s", "face", *expressions, *units]]
    for frame, time_s, face, *scores in columns.itertuples(index=False, name=None):
        due |= clock.keeps(time_s)
        if not face:
            caption = None
            continue
        if due or caption is None:
            values = dict(zip((*expressions, *units), scores, strict=True))
            caption, due = _name_likeliest(values, expressions, units), False
        captions[frame] = caption
    return captions


def _name_likeliest(
    values: dict[str, float], expressions: Sequence[str], units: Sequence[str]
) -> tuple[str, ...]:
    """Return lines such as `happiness 0.98` and `AU12 0.95  AU25 0.90`, of the likeliest."""
    lines = []
    for names, always, most in ((expressions, 1, 2), (units, 0, 3)):
        ranked = sorted(names, key=lambda name: -values[name])[:most]
        likely = [name for name in ranked if values[name] >= _LEAST_LIKELY] or ranked[:always]
        if likely:
            lines.append("  ".join(f"{name} {values[name]:.2f}" for name in likely))
    return tuple(lines)


# ---- patches of text ----------------------------------------------------------------------------


def _new_patch(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    patch = Image.new("RGBA", (width, height), _PANEL)
    return patch, ImageDraw.Draw(patch)


def _load_font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)  # type: ignore[return-value]  # scalable, given a size


def _draw_lines(
    lines: Sequence[str],
    font: ImageFont.FreeTypeFont,
    width: int,
    spacing: float,
    first_colour: tuple[int, int, int] = _WHITE,
) -> np.ndarray:
    """Return an (h, w, 4) patch with lines of text, `spacing` letter heights apart."""
    pad, step = round(font.size) // 3, round(spacing * font.size)
    patch, pen = _new_patch(width, step * len(lines) + pad)
    for number, line in enumerate(lines):
        colour = _WHITE if number else first_colour
        pen.text((pad, pad // 2 + step * number), line, colour, font)
    return _reduce(patch)


def _reduce(patch: Image.Image) -> np.ndarray:
    """Return (h, w, 4) uint8, reduced by `_FINE`."""
    return np.asarray(patch.reduce(_FINE))


def _overlap(rect: Rect, boxes: Rect | np.ndarray) -> float:
    """Return the area in pixels that a rectangle shares with one or (M, 4) boxes."""
    boxes = np.reshape(np.asarray(boxes, float), (-1, 4))
    near, far = np.array(rect[:2]), np.array(rect[:2]) + rect[2:]
    sides = np.minimum(far, boxes[:, :2] + boxes[:, 2:]) - np.maximum(near, boxes[:, :2])  # (M, 2)
    return float(sides.clip(0).prod(1).sum())


def _blend(image: np.ndarray, patch: np.ndarray, left: int, top: int) -> Rect:
    """Blend an (h, w, 4) patch into the image in place, clipped; return its rectangle."""
    left, top = max(left, 0), max(top, 0)
    under = image[top : top + patch.shape[0], left : left + patch.shape[1]]
    patch = patch[: under.shape[0], : under.shape[1]]
    alpha = patch[:, :, 3:].astype(np.uint16)
    under[:] = ((patch[:, :, :3] * alpha + under * (255 - alpha)) // 255).astype(np.uint8)
    return left, top, under.shape[1], under.shape[0]


def _shorten(name: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """Return the name; its end becomes … if it does not fit."""
    if font.getlength(name) <= room:
        return name
    while name and font.getlength(f"{name}…") > room:
        name = name[:-1]
    return f"{name}…"


def _wrap(text: str, font: ImageFont.FreeTypeFont, room: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
