"""Figures over time of a prediction, as rows of marks on one axis; no markup here.

Colours are blue and orange in two lightnesses, distinct for people with any common form of
colour vision, and never the only sign.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd

from mma_mrnnet.model.labels import EXPRESSIONS, VALENCE_AROUSAL, action_unit_title
from mma_mrnnet.prediction import VideoPrediction

MOST_COLUMNS = 240
"""Columns of a time line: more frames share one, as their mean, so that pages stay small."""
MOST_TICKS = 6  # of an axis; more would touch on a phone
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)


@dataclass(frozen=True)
class Tick:
    """A mark of the axis: position in percent of the width, text, CSS class."""

    percent: float
    text: str
    kind: str


@dataclass(frozen=True)
class Mark:
    """A rectangle of a row: left and width in thousandths, top and height in the row's units."""

    kind: str
    left: float
    width: float
    top: float
    height: float
    title: str
    opacity: float | None = None


@dataclass(frozen=True)
class Row:
    """A row over time; `height` is in the units of the marks, `pixels` on the page.

    `lines` are points of SVG polylines; `zero` draws a line at 20; a narrow page hides optional
    hints.
    """

    label: str
    description: str
    height: int
    pixels: int
    marks: list[Mark] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    line_kind: str = ""
    zero: bool = False
    hint: str = ""
    hint_is_optional: bool = False
    title: str = ""
    tight: bool = False


@dataclass(frozen=True)
class TimeLine:
    """The axis that all rows of a prediction share, up to `duration_s`.

    `edges_s` (C + 1,) are the edges of the columns, `column` (N,) the column of each frame.
    `counts_frames`: numbers are frames, not seconds (a table without time stamps).
    """

    duration_s: float
    edges_s: np.ndarray
    column: np.ndarray
    counts_frames: bool = False

    @classmethod
    def of(cls, prediction: VideoPrediction) -> "TimeLine":
        """Create the axis: one column per frame that was read, at most `MOST_COLUMNS`."""
        times_s = prediction.frames["time_s"].to_numpy(float)
        counts_frames = bool(len(times_s)) and bool(np.isnan(times_s).all())
        if counts_frames:
            times_s = np.arange(len(times_s), dtype=float)
        last_s = float(times_s[-1]) if len(times_s) else 0.0
        step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0
        duration_s = max(last_s + step_s, 1e-6)
        # The duration of a table is its last time stamp, where its last frame only begins.
        if not counts_frames and prediction.duration_s > last_s:
            duration_s = prediction.duration_s
        count = min(len(times_s), MOST_COLUMNS)
        if count == len(times_s):
            return cls(duration_s, np.append(times_s, duration_s), np.arange(count), counts_frames)
        edges_s = np.linspace(0, duration_s, count + 1)
        column = np.clip(np.searchsorted(edges_s, times_s, "right") - 1, 0, count - 1)
        return cls(duration_s, edges_s, column, counts_frames)

    def times_of_moments(self, prediction: VideoPrediction) -> np.ndarray:
        """Return (n,) positions of the frames that stage 2 read."""
        if not self.counts_frames:
            return prediction.moments["time_s"].to_numpy(float)
        frames = prediction.frames["frame"].to_numpy()
        return np.searchsorted(frames, prediction.moments["frame"].to_numpy()).astype(float)

    def gaps(self, prediction: VideoPrediction) -> list[tuple[float, float]]:
        """Return start and end in seconds of the columns without a face."""
        faces = self.means(prediction.frames["face"].to_numpy(float))
        columns = zip(faces, pairwise(self.edges_s), strict=True)
        return [bounds for share, bounds in columns if share == 0]

    def stretches(self, prediction: VideoPrediction) -> list[tuple[float, float]]:
        """Return start and end of each frame that stage 2 read: up to the next frame or gap."""
        starts = self.times_of_moments(prediction)
        step_s = float(np.median(np.diff(starts))) if len(starts) > 1 else self.duration_s
        gap_starts = [start for start, _ in self.gaps(prediction)]
        bounds = np.sort(np.concatenate([starts, gap_starts, [self.duration_s]]))
        following = bounds[np.minimum(np.searchsorted(bounds, starts, "right"), len(bounds) - 1)]
        return list(zip(starts, np.minimum(starts + step_s, following), strict=True))

    def means(self, values: np.ndarray) -> np.ndarray:
        """Return (C,) means of (N,) values over each column's frames; NaN without a number."""
        known, columns = ~np.isnan(values), len(self.edges_s) - 1
        count = np.bincount(self.column[known], minlength=columns)
        total = np.bincount(self.column[known], values[known], minlength=columns)
        return np.divide(total, count, out=np.full(columns, np.nan), where=count > 0)

    def place(self, time_s: float) -> float:
        """Return the position of a time, in thousandths of the width."""
        return round(1000 * min(max(time_s / self.duration_s, 0.0), 1.0), 1)

    def spans(self) -> list[tuple[float, float]]:
        """Return left and width of each column, in thousandths."""
        places = [self.place(edge) for edge in self.edges_s]
        return [(left, max(round(right - left, 1), 0.1)) for left, right in pairwise(places)]

    def ticks(self) -> list[Tick]:
        """Return at most `MOST_TICKS` marks of the axis, at round numbers."""
        step_s = next((step for step in _STEPS_S if self.duration_s / step < MOST_TICKS), None)
        if step_s is None:
            step_s = 3600 * np.ceil(self.duration_s / 3600 / (MOST_TICKS - 1))
        ticks = []
        for number in range(int(self.duration_s / step_s) + 1):
            percent = round(self.place(step_s * number) / 10, 2)
            # Keep marks at the ends inside; skip those near an end, which would touch.
            kind = "first" if percent < 3 else "last" if percent > 95 else ""
            ticks.append(Tick(percent, self.format(step_s * number), kind))
        return ticks

    def format(self, time_s: float) -> str:
        """Return a position on the axis as text: `2.5 s`, `1:05`, or `frame 12`."""
        return f"frame {time_s:.0f}" if self.counts_frames else format_clock(time_s)


def draw_moments(prediction: VideoPrediction, line: TimeLine) -> list[Row]:
    """Return a row per target with each frame's contribution, all on one scale.

    Empty if the contributions are unknown.
    """
    tallest = tallest_moment(prediction)
    if tallest is None:
        return []
    moments = prediction.moments
    times, spans = line.times_of_moments(prediction), _mark_spans(prediction, line)
    rows = []
    for name in prediction.intensities:
        marks = []
        for value, time_s, (left, width) in zip(moments[name], times, spans, strict=True):
            top = round(20 - max(value, 0) / tallest * 18, 2)
            height = round(abs(value) / tallest * 18, 2)
            title = f"{line.format(time_s)}: {value:+.2f}"
            marks.append(Mark("up" if value >= 0 else "down", left, width, top, height, title))
        rows.append(Row(name, f"{name}: what each frame adds", 40, 34, marks, zero=True))
    return rows


def tallest_moment(prediction: VideoPrediction) -> float | None:
    """Return the largest absolute contribution of a frame; None if none is known."""
    moments, names = prediction.moments, list(prediction.intensities)
    if moments.empty or moments[names].isna().all(axis=None):
        return None
    return max(float(moments[names].abs().max().max()), 1e-9)


def draw_running(prediction: VideoPrediction, line: TimeLine) -> list[Row]:
    """Return a row per target with the estimate up to each frame, 0 (bottom) to 1 (top)."""
    running = prediction.running
    if running.empty:
        return []
    times, spans = line.times_of_moments(prediction), _mark_spans(prediction, line)
    rows = []
    for name in prediction.intensities:
        values = np.clip(running[name].to_numpy(float), 0, 1)
        marks = [
            Mark(
                kind="up",
                left=left,
                width=width,
                top=round(20 - 20 * value, 2),
                height=round(20 * value, 2),
                title=f"up to {line.format(time_s)}: {value:.2f}",
            )
            for value, time_s, (left, width) in zip(values.tolist(), times, spans, strict=True)
            if not np.isnan(value)
        ]
        rows.append(Row(name, f"{name}: the estimate so far", 20, 22, marks))
    return rows


def draw_valence_arousal(prediction: VideoPrediction, line: TimeLine) -> list[Row]:
    """Return a row for valence and one for arousal, from -1 (bottom) to 1 (top)."""
    rows = []
    for name, kind in zip(VALENCE_AROUSAL, ("one", "two"), strict=True):
        means = line.means(prediction.frames[name].to_numpy(float))
        rows.append(
            Row(
                label=name,
                description=f"{name} over time",
                height=40,
                pixels=56,
                lines=_polylines(means, line),
                line_kind=kind,
                zero=True,
                hint="-1 to 1",
                hint_is_optional=True,
            )
        )
    return rows


def draw_heat(prediction: VideoPrediction, line: TimeLine, names: Sequence[str]) -> list[Row]:
    """Return a row per expression or action unit; a stronger colour is a higher probability."""
    rows = []
    for name in names:
        means = line.means(prediction.frames[name].to_numpy(float)).tolist()
        marks = [
            Mark("up", left, width, 0, 10, f"{value:.2f}", opacity=round(value, 2))
            for value, (left, width) in zip(means, line.spans(), strict=True)
            if value >= 0.005
        ]
        title = action_unit_title(int(name[2:])) if name.startswith("AU") else ""
        hint = "prior only" if name in prediction.prior_only else title
        description = f"{name} over time"
        rows.append(Row(name, description, 10, 15, marks, hint=hint, title=title, tight=True))
    return rows


def place_gaps(prediction: VideoPrediction, line: TimeLine) -> list[tuple[float, float]]:
    """Return left and width, in thousandths, of the columns without a face."""
    places = [(line.place(start), line.place(end)) for start, end in line.gaps(prediction)]
    return [(left, round(right - left, 1)) for left, right in places]


def check_comparable(one: VideoPrediction, other: VideoPrediction) -> None:
    """Raise ValueError if two predictions have different targets."""
    if list(one.intensities) != list(other.intensities):
        raise ValueError(
            f"{other.file}: has other targets than {one.file}: {', '.join(other.intensities)}; "
            "only results of one model compare"
        )


def list_intensities(prediction: VideoPrediction) -> list[tuple[str, float]]:
    """Return names and intensities, strongest first if targets are comparable."""
    return prediction.ranked() if prediction.calibrated else list(prediction.intensities.items())


def expression_names(frames: pd.DataFrame) -> list[str]:
    """Return the expressions among a table's columns."""
    return [name for name in EXPRESSIONS if name in frames.columns]


def action_unit_columns(frames: pd.DataFrame) -> list[str]:
    """Return the action units among a table's columns."""
    return [name for name in frames.columns if name.startswith("AU") and name[2:].isdecimal()]


def has_valence_arousal(frames: pd.DataFrame) -> bool:
    """Return whether a table has valence and arousal columns."""
    return all(name in frames.columns for name in VALENCE_AROUSAL)


def format_clock(seconds: float) -> str:
    """Return `2.5 s`, `1:05` from one minute, or `1:00:05` from one hour."""
    if seconds < 59.95:
        return f"{round(seconds, 1):g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _polylines(means: np.ndarray, line: TimeLine) -> list[str]:
    """Return points of the unbroken stretches of (C,) values in [-1, 1], on a height of 40."""
    stretches: list[list[str]] = [[]]
    for value, (left, width) in zip(means, line.spans(), strict=True):
        if np.isnan(value):
            stretches.append([])
            continue
        y = 20 - 18 * float(np.clip(value, -1, 1))
        stretches[-1] += [f"{left:g},{y:.2f}", f"{left + width:g},{y:.2f}"]
    return [" ".join(points) for points in stretches if points]


def _mark_spans(prediction: VideoPrediction, line: TimeLine) -> list[tuple[float, float]]:
    """Return left and width, in thousandths, of the marks of frames that stage 2 read.

    Marks are a tenth narrower than their stretch, so that neighbours do not touch.
    """
    stretches = line.stretches(prediction)
    places = [(line.place(start), line.place(end)) for start, end in stretches]
    return [(start, max(round((end - start) * 0.9, 1), 0.5)) for start, end in places]
