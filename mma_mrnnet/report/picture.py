"""A prediction, or two side by side, as one picture: face, intensities, moments, affect. Needs the `demo` extra."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np

from mma_mrnnet.model.labels import VALENCE_AROUSAL
from mma_mrnnet.prediction import VideoPrediction
from mma_mrnnet.report.figures import (
    TimeLine,
    action_unit_columns,
    check_comparable,
    expression_names,
)
from mma_mrnnet.report.page import others_said, pair_names

BLUE, ORANGE = "#0072b2", "#b34700"  # those of the page
_SOFT = "#57606a"
_NOT_MORE = "Relative within each clip: a longer bar on one side does not mean that this person felt more than the other."
_HATCHED = {"facecolor": "#f6f8fa", "edgecolor": "#8c959f", "hatch": "////", "linewidth": 0}


def figure_class() -> type:
    """Matplotlib's `Figure`, which draws without a display.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("pictures need the demo extra: pip install 'mma-mrnnet[demo]'") from error
    return Figure


def draw_prediction(prediction: VideoPrediction, path: str | os.PathLike[str]) -> Path:
    """A picture of a result: the face, the intensities with their notes, and what carried them over time.

    Args:
        prediction: of one person; one without a face shows its error.
        path: a .png file, written beside its target and renamed.

    Raises:
        ValueError: another ending, or matplotlib is not installed.
    """
    figure = figure_class()(figsize=(12, 6.4), dpi=110, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.75))
    _draw_summary(left, prediction, Path(prediction.file).name, upright=True)
    _draw_time(right, prediction)
    return _save(figure, path)


def draw_comparison(
    one: VideoPrediction, other: VideoPrediction, path: str | os.PathLike[str]
) -> Path:
    """Two results side by side, everything in the same place.

    Args:
        one: the left one.
        other: the right one; of the same model.
        path: a .png file, written beside its target and renamed.

    Raises:
        ValueError: other targets, another ending, or matplotlib is not installed.
    """
    check_comparable(one, other)
    figure = figure_class()(figsize=(15, 9), dpi=100, layout="constrained")
    parts = figure.subfigures(2, 2, height_ratios=(1, 1.7))
    for column, prediction in enumerate((one, other)):
        _draw_summary(parts[0, column], prediction, pair_names(one, other)[column], upright=False)
        _draw_time(parts[1, column], prediction)
    if one.relative or other.relative:
        # Under everything: a title above would have to share the line of the names.
        figure.supxlabel(_NOT_MORE, fontsize=9)
    return _save(figure, path)


def _draw_summary(figure: object, prediction: VideoPrediction, name: str, *, upright: bool) -> None:
    """Face, bars and notes: below each other, or side by side."""
    shape = (
        {"nrows": 2, "height_ratios": (1, 1.3)}
        if upright
        else {"ncols": 2, "width_ratios": (1, 2.2)}
    )
    face, bars = figure.subplots(**shape)
    face.set_axis_off()
    if prediction.thumbnail is not None:
        face.imshow(prediction.thumbnail.crop)
        face.set_title("what the model saw", fontsize=9, color=_SOFT)
    figure.suptitle(_plain(name, 46), fontsize=11)
    notes = [prediction.error, *prediction.notes()] if prediction.error else prediction.notes()
    said = "\n".join(fill(note, 52) for note in (*notes, *filter(None, [others_said(prediction)])))
    if prediction.error is not None:
        bars.set_axis_off()
        bars.text(0.5, 0.5, said, ha="center", va="center", fontsize=9)
        return
    rows = prediction.ranked() if prediction.calibrated else list(prediction.intensities.items())
    names, values = [_plain(name, 24) for name, _ in rows], [value for _, value in rows]
    places = np.arange(len(rows))
    bars.barh(places, values, color=BLUE)
    for place, value in zip(places, values, strict=True):
        # In a column of their own, which nothing else reaches.
        bars.text(1.03, place, f"{value:.2f}", va="center", fontsize=8)
    if prediction.uncorrected:
        before = [prediction.uncorrected[name] for name, _ in rows]
        bars.vlines(
            before, places - 0.45, places + 0.45, color="black", linestyle="dashed", linewidth=1.2
        )
        said += "\ndashed: without the neutral calibration"
    bars.set_yticks(places, names, fontsize=8)
    bars.invert_yaxis()
    bars.set_xlim(0, 1.0)
    bars.tick_params(axis="x", labelsize=7)
    bars.spines[["top", "right"]].set_visible(False)
    bars.set_title("intensities", fontsize=9, color=_SOFT)
    bars.set_xlabel(said, fontsize=8)


def _draw_time(figure: object, prediction: VideoPrediction) -> None:
    """Moments, valence-arousal, expressions and units, over one axis of time."""
    frames = prediction.frames
    names = [*expression_names(frames), *action_unit_columns(frames)]
    affect = all(name in frames.columns for name in VALENCE_AROUSAL)
    targets = [] if prediction.moments.empty else list(prediction.intensities)
    if targets and prediction.moments[targets].isna().all(axis=None):
        targets = []
    heights = [len(targets) * bool(targets), 4.5 * affect, len(names)]
    if prediction.frames_with_face == 0 or not any(heights):
        axes = figure.subplots()
        axes.set_axis_off()
        axes.text(
            0.5, 0.5, "nothing to show over time", ha="center", va="center", fontsize=9, color=_SOFT
        )
        return
    shown = [height for height in heights if height]
    axes = list(np.atleast_1d(figure.subplots(len(shown), 1, sharex=True, height_ratios=shown)))
    line = TimeLine.of(prediction)
    if targets:
        _draw_moments(figure, axes.pop(0), prediction, line, targets)
    if affect:
        _draw_affect(axes.pop(0), prediction, line)
    if names:
        _draw_heat(figure, axes.pop(0), prediction, line, names)
    last = figure.axes[len(shown) - 1]
    last.set_xlim(0, line.duration_s)
    last.set_xlabel("frame" if line.counted else "seconds", fontsize=8)


def _draw_moments(
    figure: object, axes: object, prediction: VideoPrediction, line: TimeLine, targets: list[str]
) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    values = prediction.moments[targets].to_numpy(float)
    most = max(float(np.nanmax(np.abs(values))), 1e-9)
    colours = LinearSegmentedColormap.from_list("up and down", [ORANGE, "#ffffff", BLUE])
    _hatch(axes, line, prediction, len(targets))
    drawn = None
    # Frame by frame, so that a gap between two of them stays empty.
    for (start, end), row in zip(line.stretches(prediction), values, strict=True):
        edges = [start, max(end, start + 1e-9)]
        drawn = axes.pcolormesh(
            edges,
            np.arange(len(targets) + 1) - 0.5,
            row[:, None],
            cmap=colours,
            vmin=-most,
            vmax=most,
        )
    _rows(axes, [_plain(name, 24) for name in targets])
    axes.set_title(
        "what each frame adds to the output (blue) or takes away (orange)", fontsize=9, color=_SOFT
    )
    bar = figure.colorbar(drawn, ax=axes, aspect=8)
    bar.ax.tick_params(labelsize=7)


def _draw_affect(axes: object, prediction: VideoPrediction, line: TimeLine) -> None:
    _hatch(axes, line, prediction, None)
    for name, colour, form in zip(
        VALENCE_AROUSAL, (BLUE, ORANGE), ("solid", "dashed"), strict=True
    ):
        means = line.means(prediction.frames[name].to_numpy(float))
        axes.stairs(means, line.edges_s, color=colour, linestyle=form, linewidth=1.5, baseline=None)
    axes.axhline(0, color=_SOFT, linewidth=0.7, linestyle="dotted")
    axes.set_ylim(-1.05, 1.05)
    axes.tick_params(labelsize=7)
    # The title is the key: one inside the field would lie over a line.
    axes.set_title("valence (blue) and arousal (orange, dashed)", fontsize=9, color=_SOFT)


def _draw_heat(
    figure: object, axes: object, prediction: VideoPrediction, line: TimeLine, names: list[str]
) -> None:
    values = np.stack(
        [line.means(prediction.frames[name].to_numpy(float)) for name in names]
    )  # (n, C)
    _hatch(axes, line, prediction, len(names))
    edges = np.arange(len(names) + 1) - 0.5
    drawn = axes.pcolormesh(
        line.edges_s, edges, np.ma.masked_invalid(values), cmap="cividis", vmin=0, vmax=1
    )
    _rows(
        axes, [f"{name} (prior only)" if name in prediction.prior_only else name for name in names]
    )
    axes.set_title("expressions and action units; hatched: no face", fontsize=9, color=_SOFT)
    bar = figure.colorbar(drawn, ax=axes)
    bar.set_label("probability", fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _rows(axes: object, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=6.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.tick_params(axis="x", labelsize=7)


def _hatch(axes: object, line: TimeLine, prediction: VideoPrediction, rows: int | None) -> None:
    """Hatches the columns in which no frame has a face; over the rows, or from -1 to 1."""
    bottom, top = (-1.05, 1.05) if rows is None else (-0.5, rows - 0.5)
    for left, right in line.gaps(prediction):
        axes.fill_between([left, right], bottom, top, **_HATCHED)


def _plain(text: str, most: int) -> str:
    """Text for matplotlib, which takes dollar signs for formulas; long text loses its middle."""
    if len(text) > most:
        text = f"{text[: most // 2]}…{text[-(most - most // 2 - 1) :]}"
    return text.encode("utf-8", "backslashreplace").decode().replace("$", r"\$")


def _save(figure: object, path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise ValueError(
            f"{path}: a picture is written as .png; got {path.suffix or 'no ending'!r}"
        )
    staging = path.with_name(f".{path.name}.tmp-{os.getpid()}.png")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="Glyph"
            )  # a name in letters that the font lacks gets boxes
            figure.savefig(staging)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
    return path
