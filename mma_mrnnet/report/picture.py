"""Draw one prediction, or two side by side, as a PNG. Needs the extra `demo`."""

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from mma_mrnnet.files import replaced_file
from mma_mrnnet.model.labels import VALENCE_AROUSAL
from mma_mrnnet.prediction import VideoPrediction
from mma_mrnnet.report.figures import (
    TimeLine,
    action_unit_columns,
    check_comparable,
    expression_names,
    has_valence_arousal,
    list_intensities,
    tallest_moment,
)
from mma_mrnnet.report.page import others_said, pair_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure, FigureBase

BLUE, ORANGE, GREY = "#0072b2", "#b34700", "#57606a"  # those of the page
_NOT_COMPARABLE = (
    "Relative within each clip: a longer bar on one side does not mean that this person felt more "
    "than the other."
)


def figure_class() -> "type[Figure]":
    """Return matplotlib's `Figure`, which needs no display; raises ValueError if not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("pictures need the demo extra: pip install 'mma-mrnnet[demo]'") from error

    class Picture(Figure):
        def _repr_png_(self) -> bytes:  # a notebook shows the figure without pyplot
            _write_png(self, target := io.BytesIO())
            return target.getvalue()

    return Picture


def draw_prediction(prediction: VideoPrediction, path: str | os.PathLike[str]) -> Path:
    """Write `prediction_figure`.

    Raises ValueError if `path` is not a .png, or matplotlib is not installed.
    """
    return _save(prediction_figure(prediction), path)


def prediction_figure(prediction: VideoPrediction) -> "Figure":
    """Draw face, intensities, notes, and affect and moments over time; without a face, the error.

    Raises ValueError if matplotlib is not installed.
    """
    figure = figure_class()(figsize=(12, 6.4), dpi=110, layout="constrained")
    parts: Any = figure.subfigures(1, 2, width_ratios=(1, 1.75))
    _draw_summary(parts[0], prediction, Path(prediction.file).name, upright=True)
    _draw_time(parts[1], prediction)
    return figure


def draw_comparison(
    one: VideoPrediction, other: VideoPrediction, path: str | os.PathLike[str]
) -> Path:
    """Draw two results of the same model side by side, with the same layout.

    Raises ValueError as `draw_prediction`, and for different targets.
    """
    check_comparable(one, other)
    figure = figure_class()(figsize=(15, 9), dpi=100, layout="constrained")
    parts: Any = figure.subfigures(2, 2, height_ratios=(1, 1.7))
    for column, prediction in enumerate((one, other)):
        _draw_summary(parts[0, column], prediction, pair_names(one, other)[column], upright=False)
        _draw_time(parts[1, column], prediction)
    if one.relative or other.relative:
        # At the bottom: a title at the top would share the line of the names.
        figure.supxlabel(_NOT_COMPARABLE, fontsize=9)
    return _save(figure, path)


def _draw_summary(
    figure: "FigureBase", prediction: VideoPrediction, name: str, *, upright: bool
) -> None:
    if upright:
        face, bars = figure.subplots(nrows=2, height_ratios=(1, 1.3))
    else:
        face, bars = figure.subplots(ncols=2, width_ratios=(1, 2.2))
    face.set_axis_off()
    if prediction.thumbnail is not None:
        face.imshow(prediction.thumbnail.crop)
        face.set_title("what the model saw", fontsize=9, color=GREY)
    figure.suptitle(_escape(name, 46), fontsize=11)
    notes = [prediction.error, *prediction.notes(), others_said(prediction)]
    text = "\n".join(fill(note, 52) for note in notes if note)
    if prediction.error is not None:
        bars.set_axis_off()
        bars.text(0.5, 0.5, text, ha="center", va="center", fontsize=9)
    else:
        _draw_bars(bars, prediction, text)


def _draw_bars(axes: "Axes", prediction: VideoPrediction, text: str) -> None:
    rows = list_intensities(prediction)
    places = np.arange(len(rows))
    axes.barh(places, [value for _, value in rows], color=BLUE)
    for place, (_, value) in enumerate(rows):
        axes.text(1.03, place, f"{value:.2f}", va="center", fontsize=8)
    if prediction.uncorrected:
        before = [prediction.uncorrected[name] for name, _ in rows]
        axes.vlines(
            before, places - 0.45, places + 0.45, color="black", linestyle="dashed", linewidth=1.2
        )
        text += "\ndashed: without the neutral calibration"
    axes.set_yticks(places, [_escape(name, 24) for name, _ in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.0)
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("intensities", fontsize=9, color=GREY)
    axes.set_xlabel(text, fontsize=8)


def _draw_time(figure: "FigureBase", prediction: VideoPrediction) -> None:
    """Draw moments, valence-arousal, expressions and units over one time axis."""
    frames = prediction.frames
    names = [*expression_names(frames), *action_unit_columns(frames)]
    targets = [] if tallest_moment(prediction) is None else list(prediction.intensities)
    heights = [len(targets), 4.5 * has_valence_arousal(frames), len(names)]
    shown = [height for height in heights if height]
    if prediction.frames_with_face == 0 or not shown:
        axes = figure.subplots()
        axes.set_axis_off()
        text = "nothing to show over time"
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=9, color=GREY)
        return
    parts = figure.subplots(len(shown), 1, sharex=True, height_ratios=shown, squeeze=False)
    remaining = iter(parts[:, 0])
    line = TimeLine.of(prediction)
    if heights[0]:
        _draw_moments(next(remaining), prediction, line, targets)
    if heights[1]:
        _draw_valence_arousal(next(remaining), prediction, line)
    if heights[2]:
        _draw_heat(next(remaining), prediction, line, names)
    last = parts[-1, 0]
    last.set_xlim(0, line.duration_s)
    last.set_xlabel("frame" if line.counts_frames else "seconds", fontsize=8)


def _draw_moments(
    axes: "Axes", prediction: VideoPrediction, line: TimeLine, targets: list[str]
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    values = prediction.moments[targets].to_numpy(float)
    tallest = tallest_moment(prediction) or 1.0
    colours = LinearSegmentedColormap.from_list("up and down", [ORANGE, "#ffffff", BLUE])
    _hatch_gaps(axes, line, prediction, -0.5, len(targets) - 0.5)
    row_edges = np.arange(len(targets) + 1) - 0.5
    # One frame at a time, so that gaps stay empty.
    for (start, end), column in zip(line.stretches(prediction), values, strict=True):
        edges = [start, max(end, start + 1e-9)]
        mesh = axes.pcolormesh(
            edges, row_edges, column[:, None], cmap=colours, vmin=-tallest, vmax=tallest
        )
    _label_rows(axes, [_escape(name, 24) for name in targets])
    title = "what each frame adds to the output (blue) or takes away (orange)"
    axes.set_title(title, fontsize=9, color=GREY)
    _add_scale(axes, mesh, aspect=8)


def _draw_valence_arousal(axes: "Axes", prediction: VideoPrediction, line: TimeLine) -> None:
    _hatch_gaps(axes, line, prediction, -1.05, 1.05)
    styles = ((BLUE, "solid"), (ORANGE, "dashed"))
    for name, (colour, form) in zip(VALENCE_AROUSAL, styles, strict=True):
        means = line.means(prediction.frames[name].to_numpy(float))
        axes.stairs(means, line.edges_s, color=colour, linestyle=form, linewidth=1.5, baseline=None)
    axes.axhline(0, color=GREY, linewidth=0.7, linestyle="dotted")
    axes.set_ylim(-1.05, 1.05)
    axes.tick_params(labelsize=7)
    # The title is the legend: one inside the axes would cover a line.
    axes.set_title("valence (blue) and arousal (orange, dashed)", fontsize=9, color=GREY)


def _draw_heat(axes: "Axes", prediction: VideoPrediction, line: TimeLine, names: list[str]) -> None:
    rows = [line.means(prediction.frames[name].to_numpy(float)) for name in names]
    values = np.ma.masked_invalid(np.stack(rows))  # (n, C)
    _hatch_gaps(axes, line, prediction, -0.5, len(names) - 0.5)
    edges = np.arange(len(names) + 1) - 0.5
    mesh = axes.pcolormesh(line.edges_s, edges, values, cmap="cividis", vmin=0, vmax=1)
    prior_only = prediction.prior_only
    _label_rows(axes, [f"{name} (prior only)" if name in prior_only else name for name in names])
    axes.set_title("expressions and action units; hatched: no face", fontsize=9, color=GREY)
    _add_scale(axes, mesh, label="probability")


def _add_scale(axes: "Axes", mesh: "QuadMesh", label: str = "", aspect: int = 20) -> None:
    bar = axes.figure.colorbar(mesh, ax=axes, aspect=aspect)
    bar.set_label(label, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _label_rows(axes: "Axes", names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=6.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=7)


def _hatch_gaps(
    axes: "Axes", line: TimeLine, prediction: VideoPrediction, bottom: float, top: float
) -> None:
    for edges in line.gaps(prediction):
        axes.fill_between(
            edges, bottom, top, facecolor="#f6f8fa", edgecolor="#8c959f", hatch="////", linewidth=0
        )


def _escape(text: str, most: int) -> str:
    """Escape text for matplotlib, where $ starts a formula; shorten long text in the middle."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"
    return text.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")


def _save(figure: "Figure", path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(
            f"{path}: a picture is written as .png; got {path.suffix or 'no ending'!r}"
        )
    with replaced_file(path) as staging:
        _write_png(figure, staging)
    return path


def _write_png(figure: "Figure", target: Path | io.BytesIO) -> None:
    with warnings.catch_warnings():
        # Letters missing from the font are drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(target)
