"""Parts of a page as HTML: bars, time lines, heat maps, film strip. Plain markup and SVG that needs no script.

Text is HTML and only the data is SVG, stretched to the width there is: a phone gets the same letters as a desk. Colours
are blue and orange of two lightnesses, which people with any common colour vision tell apart, and never the only sign.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import cv2
import numpy as np
import pandas as pd

from mma_mrnnet.model.labels import EXPRESSIONS, VALENCE_AROUSAL, action_unit_title
from mma_mrnnet.prediction import FaceSnapshot, VideoPrediction

MOST_COLUMNS = 240
"""Columns of a time line: more frames share one, as their mean. A page then stays small however long a clip."""

MOST_MARKS = 6  # on an axis: more would touch on a phone
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600)

_LIGHT = "--ink:#1b1f24;--soft:#57606a;--line:#d0d7de;--back:#fff;--card:#f6f8fa;--up:#0072b2;--down:#b34700"
_DARK = "--ink:#e6edf3;--soft:#9da7b3;--line:#3d444d;--back:#0d1117;--card:#161b22;--up:#56b4e9;--down:#e69f00"

_RULES = """
.mma{color:var(--ink);font:15px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
.mma *{box-sizing:border-box}
.mma h2{font-size:1.15em;margin:1.4em 0 .3em;color:var(--ink)}.mma p{margin:.2em 0 .7em;color:var(--soft)}
.mma-row{display:grid;grid-template-columns:minmax(7.5em,11.5em) 1fr;gap:.6em;align-items:center;margin:1px 0}
.mma-row>span{text-align:right;line-height:1.15;overflow-wrap:anywhere}
.mma-bars{grid-template-columns:minmax(7.5em,11.5em) 1fr auto}
.mma-bars>b{font-weight:600;font-variant-numeric:tabular-nums;min-width:2.4em;text-align:right}
.mma-row small{color:var(--soft);font-size:.8em}
.mma-tight>span{font-size:.82em}
.mma-bar{position:relative;height:1.5em;background:var(--card);border:1px solid var(--line);border-radius:3px}
.mma-bar i{position:absolute;inset:0 auto 0 0;background:var(--up);border-radius:2px 0 0 2px}
.mma-bar u{position:absolute;top:-2px;bottom:-2px;width:0;border-left:2px dashed var(--ink)}
.mma svg{display:block;width:100%;background:var(--card);border:1px solid var(--line);border-radius:2px}
.mma svg .up{fill:var(--up)}.mma svg .down{fill:var(--down)}.mma svg .gap{fill:url(#mma-gap)}
.mma svg .zero{stroke:var(--soft);stroke-width:1;vector-effect:non-scaling-stroke;stroke-dasharray:2 3}
.mma svg polyline{fill:none;stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
.mma svg .one{stroke:var(--up)}.mma svg .two{stroke:var(--down);stroke-dasharray:6 3}
.mma-axis{position:relative;height:1.5em;color:var(--soft);font-size:.8em}
.mma-axis i{position:absolute;transform:translateX(-50%);font-style:normal;white-space:nowrap}
.mma-axis i.first{transform:none}.mma-axis i.last{transform:translateX(-100%)}
.mma-strip{display:flex;flex-wrap:wrap;gap:6px}
.mma-strip figure{margin:0;text-align:center;flex:0 0 auto;color:var(--soft);font-size:.8em}
.mma-strip img{display:block;width:84px;height:84px;border-radius:4px;border:1px solid var(--line)}
.mma-notes{border-left:4px solid var(--down);background:var(--card);padding:.5em .8em;margin:.8em 0}
.mma-notes{border-radius:0 4px 4px 0}
.mma-notes p{margin:.15em 0;color:var(--ink)}
.mma-key{display:inline-block;width:.9em;height:.9em;border-radius:2px;vertical-align:-.1em;margin-right:.3em}
.mma-hatch{background:repeating-linear-gradient(45deg,var(--soft) 0 1.5px,transparent 1.5px 4px)}
.mma-hatch{border:1px solid var(--line)}
@media(max-width:34em){.mma-row{grid-template-columns:6.4em 1fr;gap:.5em}.mma-bars{grid-template-columns:6.4em 1fr auto}
.mma-row>span{font-size:.87em}.mma-tight>span{font-size:.78em}.mma small.long{display:none}}
"""

_HATCH = (
    '<svg width="0" height="0" style="position:absolute;border:0" aria-hidden="true"><defs><pattern id="mma-gap" '
    'width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="1.4" height="6" '
    'style="fill:var(--soft)"/></pattern></defs></svg>'
)


def style(dark: str | None = None) -> str:
    """The style sheet, to be put once into a page.

    Args:
        dark: a selector that holds where the page is dark, such as `.dark`; None follows the reader's own setting.
    """
    darkness = (
        f"@media(prefers-color-scheme:dark){{.mma{{{_DARK}}}}}"
        if dark is None
        else f"{dark} .mma{{{_DARK}}}"
    )
    return f"<style>.mma{{{_LIGHT}}}{darkness}{_RULES}</style>"


def wrapped(*parts: str) -> str:
    """The parts of a figure in the element that the style sheet speaks of."""
    return f'<div class="mma">{_HATCH}{"".join(parts)}</div>'


@dataclass(frozen=True)
class TimeLine:
    """What all time lines of one clip share.

    Attributes:
        duration_s: where the axis ends.
        edges_s: (C + 1,) borders of the columns.
        column: (N,) the column of each of the clip's N frames.
        counted: of a table without time stamps: the numbers are frames, not seconds.
    """

    duration_s: float
    edges_s: np.ndarray
    column: np.ndarray
    counted: bool = False

    @classmethod
    def of(cls, prediction: VideoPrediction) -> "TimeLine":
        """The time line of a clip: a column a frame that was looked at, or fewer where there are very many."""
        times_s = prediction.frames["time_s"].to_numpy(float)
        counted = bool(len(times_s)) and bool(np.isnan(times_s).all())
        if counted:  # a table without time stamps
            times_s = np.arange(len(times_s), dtype=float)
        last_s = float(times_s[-1]) if len(times_s) else 0.0
        step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1.0
        whole = (
            not counted and prediction.duration_s > last_s
        )  # not of a table, whose length is its last time stamp
        duration_s = prediction.duration_s if whole else max(last_s + step_s, 1e-6)
        count = min(len(times_s), MOST_COLUMNS)
        if count == len(times_s):
            return cls(duration_s, np.append(times_s, duration_s), np.arange(count), counted)
        edges_s = np.linspace(0, duration_s, count + 1)
        column = np.clip(np.searchsorted(edges_s, times_s, "right") - 1, 0, count - 1)
        return cls(duration_s, edges_s, column, counted)

    def times_of_moments(self, prediction: VideoPrediction) -> np.ndarray:
        """(n,) where the frames that the recurrent part read lie on the axis."""
        if not self.counted:
            return prediction.moments["time_s"].to_numpy(float)
        return np.searchsorted(
            prediction.frames["frame"].to_numpy(), prediction.moments["frame"].to_numpy()
        ).astype(float)

    def gaps(self, prediction: VideoPrediction) -> list[tuple[float, float]]:
        """Start and end in seconds of the columns in which no frame has a face."""
        faces = self.means(prediction.frames["face"].to_numpy(float))
        return [
            (start, end)
            for share, (start, end) in zip(faces, pairwise(self.edges_s), strict=True)
            if share == 0
        ]

    def stretches(self, prediction: VideoPrediction) -> list[tuple[float, float]]:
        """Start and end in seconds of what stands for each frame that was read: until the next, or the face is gone."""
        starts = self.times_of_moments(prediction)
        step_s = float(np.median(np.diff(starts))) if len(starts) > 1 else self.duration_s
        bounds = np.sort(
            np.concatenate(
                [starts, [start for start, _ in self.gaps(prediction)], [self.duration_s]]
            )
        )
        following = bounds[np.minimum(np.searchsorted(bounds, starts, "right"), len(bounds) - 1)]
        return list(zip(starts, np.minimum(starts + step_s, following), strict=True))

    def means(self, values: np.ndarray) -> np.ndarray:
        """(C,) mean of the frames of each column, of (N,) values; NaN where there is no number."""
        known = ~np.isnan(values)
        count = np.bincount(self.column[known], minlength=len(self.edges_s) - 1)
        total = np.bincount(self.column[known], values[known], minlength=len(self.edges_s) - 1)
        return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)

    def place(self, time_s: float) -> float:
        """Where a time lies, in thousandths of the width."""
        return round(1000 * min(max(time_s / self.duration_s, 0.0), 1.0), 1)

    def spans(self) -> Iterable[tuple[float, float]]:
        """Left and width of each column, in thousandths."""
        places = [self.place(edge) for edge in self.edges_s]
        return [(left, max(round(right - left, 1), 0.1)) for left, right in pairwise(places)]

    def axis(self) -> str:
        """A row with the seconds below."""
        marks = []
        for tick in self.ticks():
            place = self.place(tick) / 10
            # Marks at the very ends stay inside; one that is nearly there would touch the edge, or the one before.
            kind = ' class="first"' if place < 3 else ' class="last"' if place > 95 else ""
            marks.append(f'<i{kind} style="left:{place:g}%">{self.said(tick)}</i>')
        return (
            f'<div class="mma-row"><span></span><div class="mma-axis">{"".join(marks)}</div></div>'
        )

    def ticks(self) -> list[float]:
        """Where the axis has marks: at most six, on round numbers."""
        step = next((step for step in _STEPS if self.duration_s / step < MOST_MARKS), None)
        if step is None:
            step = 3600 * np.ceil(self.duration_s / 3600 / (MOST_MARKS - 1))
        return [step * number for number in range(int(self.duration_s / step) + 1)]

    def said(self, time_s: float) -> str:
        """A place on the axis in words: `2.5 s`, `1:05`, or `frame 12`."""
        return f"frame {time_s:.0f}" if self.counted else _clock(time_s)


def intensity_bars(prediction: VideoPrediction) -> str:
    """One bar a target, strongest first where targets compare; with a neutral calibration a mark of the bar without."""
    rows = prediction.ranked() if prediction.calibrated else list(prediction.intensities.items())
    return bars(rows, prediction.uncorrected)


def bars(rows: Sequence[tuple[str, float]], before: Mapping[str, float] | None = None) -> str:
    """A bar from 0 to 1 for each name and value, with a dashed mark at what it was before, where that is known."""
    lines = []
    for name, value in rows:
        share = min(max(value, 0.0), 1.0)
        old = (before or {}).get(name)
        mark = (
            ""
            if old is None
            else f'<u style="left:{100 * min(max(old, 0), 1):.1f}%" title="without: {old:.2f}"></u>'
        )
        lines.append(
            f'<div class="mma-row mma-bars"><span>{escape(name)}</span><div class="mma-bar" role="img" '
            f'aria-label="{escape(name)} {value:.2f}"><i style="width:{100 * share:.1f}%"></i>{mark}</div>'
            f"<b>{value:.2f}</b></div>"
        )
    return "".join(lines)


def film_strip(strip: Sequence[FaceSnapshot]) -> str:
    """The aligned faces that the extractor saw, each with its time."""
    figures = [
        f'<figure><img alt="face at {_clock(shot.time_s)}" src="{picture_source(shot.crop)}">'
        f"<figcaption>{_clock(shot.time_s)}</figcaption></figure>"
        for shot in strip
    ]
    return f'<div class="mma-strip">{"".join(figures)}</div>'


def picture_source(image: np.ndarray) -> str:
    """(H, W, 3) uint8 RGB as a `data:` address of a JPEG."""
    encoded = cv2.imencode(
        ".jpg", np.ascontiguousarray(image[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 88]
    )[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def moments_rows(prediction: VideoPrediction, line: TimeLine) -> str:
    """A row a target: what each frame that was read adds to it or takes away; the same height means the same amount."""
    names = list(prediction.intensities)
    moments = prediction.moments
    if moments.empty or moments[names].isna().all(axis=None):
        return "<p>This model cannot tell what each frame added.</p>"
    most = max(float(moments[names].abs().max(axis=None)), 1e-9)
    times = line.times_of_moments(prediction)
    spans, gaps = _spans_of(line.stretches(prediction), line), _gaps(prediction, line)
    rows = []
    for name in names:
        parts = [
            f'<rect class="{"up" if value >= 0 else "down"}" x="{left}" width="{width}" '
            f'y="{20 - max(value, 0) / most * 18:.2f}" height="{abs(value) / most * 18:.2f}">'
            f"<title>{line.said(time_s)}: {value:+.2f}</title></rect>"
            for value, time_s, (left, width) in zip(moments[name], times, spans, strict=True)
        ]
        rows.append(
            _svg_row(
                escape(name),
                40,
                "34px",
                [*gaps(40), *parts, _zero(20)],
                f"{name}: what each frame adds",
            )
        )
    return f"{''.join(rows)}{line.axis()}<p>All rows share one scale: the tallest mark is {most:.2f}.</p>"


def running_rows(prediction: VideoPrediction, line: TimeLine) -> str:
    """A row a target: the estimate of all frames up to each one, from 0 at the bottom to 1 at the top."""
    running = prediction.running
    if running.empty:
        return ""
    times = line.times_of_moments(prediction)
    spans, gaps = _spans_of(line.stretches(prediction), line), _gaps(prediction, line)
    rows = []
    for name in prediction.intensities:
        values = np.clip(running[name].to_numpy(float), 0, 1)
        parts = [
            f'<rect class="up" x="{left}" width="{width}" y="{20 - 20 * value:.2f}" height="{20 * value:.2f}">'
            f"<title>up to {line.said(time_s)}: {value:.2f}</title></rect>"
            for value, time_s, (left, width) in zip(values, times, spans, strict=True)
            if not np.isnan(value)
        ]
        rows.append(
            _svg_row(escape(name), 20, "22px", [*gaps(20), *parts], f"{name}: the estimate so far")
        )
    return "".join(rows) + line.axis()


def valence_arousal_rows(prediction: VideoPrediction, line: TimeLine) -> str:
    """Valence and arousal over time, a row each, from -1 at the bottom to 1 at the top; hatched without a face."""
    gaps = _gaps(prediction, line)
    rows = []
    for name, kind in zip(VALENCE_AROUSAL, ("one", "two"), strict=True):
        means = line.means(prediction.frames[name].to_numpy(float))
        lines = [
            f'<polyline class="{kind}" points="{points}"/>' for points in _polylines(means, line)
        ]
        label = f'{name} <small class="long">-1 to 1</small>'
        rows.append(
            _svg_row(label, 40, "56px", [*gaps(40), _zero(20), *lines], f"{name} over time")
        )
    return "".join(rows) + line.axis()


def heat_rows(prediction: VideoPrediction, line: TimeLine, names: Sequence[str]) -> str:
    """A row a name: the darker, the likelier; hatched where there was no face."""
    gaps = _gaps(prediction, line)
    rows = []
    for name in names:
        means = line.means(prediction.frames[name].to_numpy(float))
        cells = [
            f'<rect class="up" x="{left}" width="{width}" y="0" height="10" fill-opacity="{value:.2f}">'
            f"<title>{value:.2f}</title></rect>"
            for value, (left, width) in zip(means, line.spans(), strict=True)
            if value >= 0.005
        ]
        label = _heat_label(name, prediction.prior_only)
        rows.append(
            _svg_row(label, 10, "15px", [*gaps(10), *cells], f"{name} over time", "mma-tight")
        )
    return "".join(rows) + line.axis()


def check_comparable(one: VideoPrediction, other: VideoPrediction) -> None:
    """Raises ValueError where two predictions have other targets."""
    if list(one.intensities) != list(other.intensities):
        raise ValueError(
            f"{other.file}: has other targets than {one.file}: {', '.join(other.intensities)}; "
            "only results of one model compare"
        )


def expression_names(frames: pd.DataFrame) -> list[str]:
    """The expressions among a table's columns."""
    return [name for name in EXPRESSIONS if name in frames.columns]


def action_unit_columns(frames: pd.DataFrame) -> list[str]:
    """The action units among a table's columns."""
    return [name for name in frames.columns if name.startswith("AU") and name[2:].isdecimal()]


def _heat_label(name: str, prior_only: Sequence[str]) -> str:
    if not name.startswith("AU"):
        return escape(name)
    title = action_unit_title(int(name[2:]))
    hint = "prior only" if name in prior_only else title
    return f'<span title="{escape(title)}">{escape(name)} <small>{escape(hint)}</small></span>'


def _gaps(prediction: VideoPrediction, line: TimeLine) -> Callable[[int], list[str]]:
    """What gives, for a height, the hatched places of columns in which no frame has a face."""
    places = [(line.place(start), line.place(end)) for start, end in line.gaps(prediction)]

    def rects(height: int) -> list[str]:
        return [
            f'<rect class="gap" x="{left}" width="{round(right - left, 1)}" y="0" height="{height}">'
            "<title>no face</title></rect>"
            for left, right in places
        ]

    return rects


def _polylines(means: np.ndarray, line: TimeLine) -> list[str]:
    """Points of the unbroken stretches of (C,) values in [-1, 1], on a height of 40."""
    stretches: list[list[str]] = [[]]
    for value, (left, width) in zip(means, line.spans(), strict=True):
        if np.isnan(value):
            stretches.append([])
            continue
        y = 20 - 18 * float(np.clip(value, -1, 1))
        stretches[-1] += [f"{left:g},{y:.2f}", f"{left + width:g},{y:.2f}"]
    return [" ".join(points) for points in stretches if points]


def _spans_of(
    stretches: Sequence[tuple[float, float]], line: TimeLine
) -> list[tuple[float, float]]:
    """Left and width, in thousandths, of marks over some stretches of time, with a little air between them."""
    places = [(line.place(start), line.place(end)) for start, end in stretches]
    return [(start, max(round((end - start) * 0.9, 1), 0.5)) for start, end in places]


def _svg_row(
    label: str, height: int, shown: str, parts: Sequence[str], said: str, kind: str = ""
) -> str:
    return (
        f'<div class="mma-row {kind}"><span>{label}</span><svg viewBox="0 0 1000 {height}" preserveAspectRatio="none" '
        f'style="height:{shown}" role="img" aria-label="{escape(said)}">{"".join(parts)}</svg></div>'
    )


def _zero(y: int) -> str:
    return f'<line class="zero" x1="0" x2="1000" y1="{y}" y2="{y}"/>'


def _clock(seconds: float) -> str:
    """`2.5 s`, `1:05` from a minute on, or `1:00:05` from an hour on."""
    if seconds < 59.95:
        return f"{round(seconds, 1):g} s"
    minutes, rest = divmod(round(seconds), 60)
    return (
        f"{minutes}:{rest:02d}"
        if minutes < 60
        else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
    )
