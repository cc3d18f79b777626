"""A clip with what was read on it drawn over its own frames: boxes, affect, the estimates so far, and the notes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from mma_mrnnet.prediction import BOX_NAMES, VideoPrediction
from mma_mrnnet.report.figures import action_unit_columns, expression_names
from mma_mrnnet.video.reading import FrameClock, VideoFrame
from mma_mrnnet.video.writing import redraw_video

READINGS_A_SECOND = (
    2.0  # what is written beside a face changes no faster, or nobody could read it (our choice)
)
COLOURS = (
    (86, 180, 233),
    (230, 159, 0),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
)
"""One a person: those of Okabe and Ito that are light enough to stand on black."""

_INK, _PANEL, _EMPTY = (255, 255, 255), (16, 20, 24, 190), (72, 80, 88, 220)
_SMALLEST_TEXT = 11  # pixels
_FINE = 3  # labels are drawn this much larger, then reduced: letters of a few pixels keep their distances
_LEAST_SHOWN = (
    0.3  # probability below which an expression beside the strongest, or a unit, is not named
)
_ABOVE, _BELOW, _RIGHT, _LEFT, _INSIDE = range(5)

Rect = tuple[int, int, int, int]
"""x, y, width, height in pixels."""


def annotate_video(
    predictions: Sequence[VideoPrediction], path: str | os.PathLike[str]
) -> list[str]:
    """Writes the clip with what was read drawn on it, its size, times and sound kept (see `redraw_video`).

    Boxes are the detector's of each frame, without their tremor: the middle of five frames. Beside a box stand the
    strongest expressions and action units of that face, `READINGS_A_SECOND` times a second; in a corner the estimates
    of the intensities so far; at the bottom what must stand beside them. A clip without a face says so.

    Args:
        predictions: the people of one clip, at least one, each with a row for every frame of the file
            (`predict_people(clip, every_frame=True)`).
        path: an .mp4 file, which appears when it is complete; not the clip itself.

    Returns:
        What was lost or found no room, in words; empty where nothing was.

    Raises:
        VideoError: the clip can no longer be read.
        ValueError: no predictions, of several clips, or without a row for every frame; a path that is no .mp4, or is
            the clip itself.
    """
    if len({prediction.file for prediction in predictions}) != 1:
        raise ValueError(
            f"predictions must be of one clip; got {sorted({each.file for each in predictions})}"
        )
    source = predictions[0].file
    people = [_Person.of(prediction, number) for number, prediction in enumerate(predictions)]
    painter: list[_Painter] = []

    def draw(frame: VideoFrame) -> np.ndarray:
        if not painter:
            painter.append(
                _Painter(
                    people,
                    list(predictions[0].intensities),
                    _said(predictions),
                    frame.image.shape[:2],
                )
            )
        return painter[0].paint(frame)

    known = predictions[0].warning or ""
    lost = [said for said in redraw_video(source, path, draw) if said not in known]
    return lost + painter[0].without_room()


@dataclass
class _Person:
    """One person, as the frames need them.

    Attributes:
        name: as it stands beside the face.
        colour: of the box.
        boxes: (N, 4) for every frame of the file; NaN where there is no face.
        captions: what stands beside the face: at its frame's number.
        running_s: (M,) times of the estimates ...
        running: ... and these, (M, K).
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
                f"{prediction.file}: a drawn clip needs a row for every frame: predict it with every_frame=True"
            )
        running = prediction.running
        return cls(
            name=f"person {prediction.track}",
            colour=COLOURS[number % len(COLOURS)],
            boxes=_steadied(frames[list(BOX_NAMES)]),
            captions=_captions(frames, prediction.prior_only),
            running_s=np.array([]) if running.empty else running["time_s"].to_numpy(float),
            running=np.array([])
            if running.empty
            else running[list(prediction.intensities)].to_numpy(float),
        )

    def estimate(self, time_s: float) -> np.ndarray | None:
        """(K,) after all that was read until then; None before anything was."""
        place = int(np.searchsorted(self.running_s, time_s + 1e-3, side="right")) - 1
        return None if place < 0 else self.running[place]


class _Painter:
    """Draws on the frames of one clip, in order.

    Args:
        people: who is in it.
        targets: names of the K intensities.
        notes: what must stand beside them.
        size: height and width of the frames.
    """

    def __init__(
        self, people: Sequence[_Person], targets: Sequence[str], notes: str, size: tuple[int, int]
    ) -> None:
        self._height, self._width = size
        self._text = max(round(min(size) / 36), _SMALLEST_TEXT)
        self._font = ImageFont.load_default(_FINE * self._text)
        self._small = ImageFont.load_default(
            _FINE * max(round(self._text * 0.85), _SMALLEST_TEXT - 1)
        )
        self._people, self._targets = people, targets
        self._notes = self._notes_patch(notes)
        shown = [person for person in people if len(person.running)]
        self._corners = self._corners_for(shown)
        self._roomless = [person.name for person in shown if person.name not in self._corners]
        self._panels: dict[str, tuple[bytes, np.ndarray]] = {}
        self._chips: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
        self._sides: dict[
            str, int
        ] = {}  # where each caption stood last, so that it does not jump about

    def without_room(self) -> list[str]:
        """Whose estimates are not on the frames, in words."""
        size, names = f"{self._width} x {self._height}", ", ".join(self._roomless)
        return [f"frames of {size} have no room for the estimates of {names}"] if names else []

    def paint(self, frame: VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8 RGB."""
        image = frame.image
        if image.shape[:2] != (self._height, self._width):
            image = cv2.resize(image, (self._width, self._height), interpolation=cv2.INTER_AREA)
        here = [
            (person, box)
            for person in self._people
            if (box := _box_at(person, frame.index)) is not None
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
            taken.append(self._caption(image, person, frame.index, box, [*taken, *others]))
        return image

    def _outline(self, image: np.ndarray, box: Rect, colour: tuple[int, int, int]) -> None:
        x, y, width, height = box
        thick = max(self._text // 8, 2)
        corners = (x, y), (x + width, y + height)
        cv2.rectangle(image, *corners, (0, 0, 0), thick + 2, cv2.LINE_AA)
        cv2.rectangle(image, *corners, colour, thick, cv2.LINE_AA)

    def _caption(
        self, image: np.ndarray, person: _Person, index: int, box: Rect, taken: Sequence[Rect]
    ) -> Rect:
        """Draws a person's name and reading beside their face, where least is in the way; the place."""
        lines = (person.name, *person.captions.get(index, ()))
        held = self._chips.get(person.name)
        if held is None or held[0] != lines:
            held = lines, self._chip(lines, person.colour)
            self._chips[person.name] = held
        patch = held[1]
        side, place = self._free_side(person.name, box, patch.shape, taken)
        self._sides[person.name] = side
        return _blend(image, patch, *place)

    def _free_side(
        self, name: str, box: Rect, shape: tuple[int, ...], taken: Sequence[Rect]
    ) -> tuple[int, tuple[int, int]]:
        x, y, width, height = box
        tall, wide = shape[:2]
        gap = max(self._text // 4, 2)
        places = {
            _ABOVE: (x, y - tall - gap),
            _BELOW: (x, y + height + gap),
            _RIGHT: (x + width + gap, y),
            _LEFT: (x - wide - gap, y),
            _INSIDE: (
                x,
                y + height - tall,
            ),  # inside: a face that fills the frame leaves nothing beside it
        }
        last = self._sides.get(name)
        order = sorted(places, key=lambda side: (side != last, side == _INSIDE))
        found = []
        for side in order:
            left = min(max(places[side][0], 0), max(self._width - wide, 0))
            top = min(max(places[side][1], 0), max(self._height - tall, 0))
            hidden = sum(_overlap((left, top, wide, tall), other) for other in taken)
            own = 0 if side == _INSIDE else _overlap((left, top, wide, tall), box)
            # Its own face comes last: beside or inside, but never half across.
            found.append((hidden, own, len(found), side, (left, top)))
        *_, side, place = min(found)
        return side, place

    def _chip(self, lines: Sequence[str], colour: tuple[int, int, int]) -> np.ndarray:
        """(h, w, 4) a dark label with lines of text, the first in the person's colour."""
        step, pad = round(1.25 * self._font.size), self._font.size // 3
        width = max(round(self._font.getlength(line)) for line in lines) + 2 * pad
        patch, pen = _canvas(width, step * len(lines) + pad)
        for number, line in enumerate(lines):
            pen.text(
                (pad, pad // 2 + step * number), line, colour if number == 0 else _INK, self._font
            )
        return _reduced(patch)

    def _panel_size(self) -> tuple[int, int]:
        """Width and height of a panel of estimates, as it is drawn: larger than it will be."""
        size = self._small.size
        names = max(round(self._small.getlength(name)) for name in self._targets)
        width = min(names, _FINE * self._width // 4) + round(8.5 * size)
        return -(-width // _FINE) * _FINE, -(
            -(self._step() * (len(self._targets) + 1) + size) // _FINE
        ) * _FINE

    def _step(self) -> int:
        return round(1.35 * self._small.size)

    def _place_panel(self, image: np.ndarray, person: _Person, time_s: float) -> Rect:
        estimate = person.estimate(time_s)
        key = b"" if estimate is None else estimate.tobytes()
        held = self._panels.get(person.name)
        if held is None or held[0] != key:
            held = key, self._panel(person, estimate)
            self._panels[person.name] = held
        return _blend(image, held[1], *self._corners[person.name])

    def _panel(self, person: _Person, estimate: np.ndarray | None) -> np.ndarray:
        """(h, w, 4) a person's estimates so far, a bar a target."""
        width, height = self._panel_size()
        step, size = self._step(), self._small.size
        pad, long = size // 2, 4 * size  # around all, and a bar's length
        patch, pen = _canvas(width, height)
        pen.text((pad, pad // 2), f"{person.name}, so far", person.colour, self._small)
        numbers = width - pad - round(self._small.getlength("0.00"))
        left = numbers - pad - long
        for row, name in enumerate(self._targets):
            top = pad // 2 + step * (row + 1)
            pen.text((pad, top), _shortened(name, self._small, left - 2 * pad), _INK, self._small)
            upper, lower = top + step // 6, top + step - step // 6
            pen.rectangle((left, upper, left + long, lower), _EMPTY)
            value = float("nan") if estimate is None else float(estimate[row])
            if not np.isnan(value):
                pen.rectangle(
                    (left, upper, left + round(long * min(max(value, 0.0), 1.0)), lower),
                    person.colour,
                )
                pen.text((numbers, top), f"{value:.2f}", _INK, self._small)
        return _reduced(patch)

    def _notes_patch(self, said: str) -> np.ndarray:
        """(h, W, 4) the notes, wrapped to the width of the frames."""
        pad = self._small.size // 3
        lines = _wrapped(said, self._small, _FINE * self._width - 2 * pad)
        patch, pen = _canvas(_FINE * self._width, self._step() * len(lines) + pad)
        for number, line in enumerate(lines):
            pen.text((pad, pad // 2 + self._step() * number), line, _INK, self._small)
        return _reduced(patch)

    def _corners_for(self, people: Sequence[_Person]) -> dict[str, tuple[int, int]]:
        """Where each person's panel stands throughout the clip: at the sides, over as little of any face as can be.

        People without a place, because the frames are small or they are many, are missing.
        """
        width, height = (side // _FINE for side in self._panel_size())
        margin = self._text // 2
        bottom = self._height - self._notes.shape[0] - margin
        rows = (bottom - margin) // (height + margin)
        if (
            2 * (width + margin) > self._width or rows < 1
        ):  # a panel over half of the frame hides too much
            return {}
        tops = {margin + row * (height + margin) for row in range(rows)}
        tops |= {bottom - height - row * (height + margin) for row in range(rows)}
        boxes = np.concatenate([person.boxes for person in people]) if people else np.zeros((0, 4))
        boxes = boxes[~np.isnan(boxes).any(1)]  # (M, 4)
        hidden = {
            (left, top, width, height): _overlaps((left, top, width, height), boxes)
            for left in (margin, self._width - width - margin)
            for top in tops
        }
        corners: dict[str, tuple[int, int]] = {}
        for person in people:
            middle = float(np.nanmedian(person.boxes[:, 0] + person.boxes[:, 2] / 2))
            places = sorted(
                hidden,
                key=lambda place: (hidden[place], abs(place[0] + width / 2 - middle), place[1]),
            )
            if places:
                corners[person.name] = places[0][:2]
                hidden = {
                    place: seen for place, seen in hidden.items() if not _overlap(place, places[0])
                }
        return corners


def _canvas(width: int, height: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A dark patch that lets what is behind shine through, and what draws on it."""
    patch = Image.new("RGBA", (width, height), _PANEL)
    return patch, ImageDraw.Draw(patch)


def _reduced(patch: Image.Image) -> np.ndarray:
    """(h, w, 4) uint8 at the size of the frames."""
    return np.asarray(patch.reduce(_FINE))


def _said(predictions: Sequence[VideoPrediction]) -> str:
    """What must stand on the frames, each note once; one that is not everybody's says whose it is."""
    said = [[prediction.error, *prediction.notes()] for prediction in predictions]
    # Of those with a result: whoever has none has no notes either, and the others' still hold for all that is shown.
    results = [each for each in said if each[0] is None] or said
    notes = []
    for prediction, each in zip(predictions, said, strict=True):
        for note in filter(None, each):
            shared = all(note in other for other in results)
            notes.append(note if shared else f"person {prediction.track}: {note}")
    return (
        "; ".join(dict.fromkeys(notes)) or "intensities of facial reactions, as a model reads them"
    )


def _steadied(boxes: pd.DataFrame) -> np.ndarray:
    """(N, 4) the median of five frames around each: no tremor, no delay, and a jump stays a jump."""
    steady = boxes.rolling(5, center=True, min_periods=1).median()
    return steady.where(boxes.notna()).to_numpy(float)


def _captions(frames: pd.DataFrame, prior_only: Sequence[str]) -> dict[int, tuple[str, ...]]:
    """What is written beside a face at each frame that has one: read anew at each tick, held in between."""
    expressions, clock = expression_names(frames), FrameClock(READINGS_A_SECOND)
    units = [name for name in action_unit_columns(frames) if name not in prior_only]
    captions: dict[int, tuple[str, ...]] = {}
    said: tuple[str, ...] | None = None
    due = False
    for row in frames[["frame", "time_s", "face", *expressions, *units]].itertuples(index=False):
        values = dict(zip((*expressions, *units), row[3:], strict=True))
        due |= clock.keeps(row[1])
        if not row[2]:
            said = None
            continue
        if due or said is None:
            said, due = _reading(values, expressions, units), False
        captions[row[0]] = said
    return captions


def _reading(
    values: dict[str, float], expressions: Sequence[str], units: Sequence[str]
) -> tuple[str, ...]:
    """`happiness 0.98` and `AU12 0.95  AU25 0.90`: the strongest expression, and what else is likely enough."""

    def strongest(names: Sequence[str], most: int) -> list[str]:
        ranked = sorted(names, key=lambda name: -values[name])
        return [
            f"{name} {values[name]:.2f}" for name in ranked[:most] if values[name] >= _LEAST_SHOWN
        ]

    likely = strongest(expressions, 2)
    if expressions and not likely:
        first = max(expressions, key=lambda name: values[name])
        likely = [f"{first} {values[first]:.2f}"]
    return tuple("  ".join(part) for part in (likely, strongest(units, 3)) if part)


def _box_at(person: _Person, index: int) -> Rect | None:
    """None where there is no face; also beyond the frames that were read."""
    if index >= len(person.boxes) or np.isnan(person.boxes[index]).any():
        return None
    return tuple(round(side) for side in person.boxes[index].tolist())


def _overlap(one: Rect, other: Rect) -> int:
    """Pixels that two rectangles share."""
    across = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    down = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    return max(across, 0) * max(down, 0)


def _overlaps(one: Rect, boxes: np.ndarray) -> float:
    """Pixels that a rectangle shares with (M, 4) boxes together."""
    near, far = np.array(one[:2]), np.array(one[:2]) + one[2:]
    sides = np.minimum(far, boxes[:, :2] + boxes[:, 2:]) - np.maximum(near, boxes[:, :2])  # (M, 2)
    return float(sides.clip(0).prod(1).sum())


def _blend(image: np.ndarray, patch: np.ndarray, left: int, top: int) -> Rect:
    """Lays an (h, w, 4) patch over the image in place, cut at its edges; where it lies."""
    left, top = max(left, 0), max(top, 0)
    under = image[top : top + patch.shape[0], left : left + patch.shape[1]]
    patch = patch[: under.shape[0], : under.shape[1]]
    share = patch[:, :, 3:].astype(np.uint16)
    under[:] = ((patch[:, :, :3] * share + under * (255 - share)) // 255).astype(np.uint8)
    return left, top, under.shape[1], under.shape[0]


def _shortened(name: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """A name that fits, its end left out where it does not."""
    if font.getlength(name) <= room:
        return name
    while name and font.getlength(f"{name}…") > room:
        name = name[:-1]
    return f"{name}…"


def _wrapped(text: str, font: ImageFont.FreeTypeFont, room: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
