"""The report's pictures: reliability and correlations by source, and crops on which the model fails."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mma_mrnnet.analysis.evaluation.scores import Answers
from mma_mrnnet.metrics import reliability
from mma_mrnnet.model.labels import (
    EXPRESSIONS,
    NO_CLASS,
    action_unit_name,
    is_present,
    presence_target,
)
from mma_mrnnet.training.datasets import FrameDataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_UNITS = (4, 12, 25)  # of the reliability curves: the ones that photos show often
LEAST_ROWS = 20  # of a curve, and a fifth of that of each of its points
WORST = 6  # crops of each kind of failure and source


def draw_scores(path: Path, report: dict, answers: Mapping[str, Answers]) -> None:
    """`evaluation.png`: reliability curves of expressions and of a few units, and each source's AU correlations.

    Args:
        path: the PNG file; written beside its place and renamed.
        report: what `evaluation.json` holds.
        answers: of each source.
    """
    from matplotlib.figure import Figure

    rows = 1 + len(report["sources"])
    figure = Figure(figsize=(13, 3.4 + 1.7 * (rows - 1)), layout="constrained")
    grid = figure.add_gridspec(rows, 1 + len(SHOWN_UNITS), height_ratios=[2.1] + [1] * (rows - 1))
    curves = [
        ("expressions", _expression_pairs),
        *((action_unit_name(unit), unit) for unit in SHOWN_UNITS),
    ]
    for column, (title, kind) in enumerate(curves):
        axes = figure.add_subplot(grid[0, column])
        for number, (source, own) in enumerate(answers.items()):
            pairs = kind(own) if callable(kind) else _unit_pairs(own, kind)
            _reliability_curve(axes, *pairs, source, f"C{number}")
        _reliability_frame(axes, title)
    for number, (source, scores) in enumerate(report["sources"].items()):
        _correlation_bars(figure.add_subplot(grid[number + 1, :]), source, scores, f"C{number}")
    _save(figure, path)


def _expression_pairs(answers: Answers) -> tuple[Tensor, Tensor]:
    """Confidence and whether it was right, of the labelled images."""
    labelled = answers.expression != NO_CLASS
    confidence, named = answers.probabilities[labelled].max(-1)
    return confidence, named == answers.expression[labelled]


def _unit_pairs(answers: Answers, unit: int) -> tuple[Tensor, Tensor]:
    """Probability and presence of a unit, of the images annotated with it."""
    if unit not in answers.action_units:
        return torch.zeros(0), torch.zeros(0, dtype=torch.bool)
    place = answers.action_units.index(unit)
    known = ~answers.intensity[:, place].isnan()
    return answers.presence[known, place], is_present(answers.intensity[known, place])


def _reliability_curve(
    axes: "Axes", probability: Tensor, outcome: Tensor, source: str, colour: str
) -> None:
    if len(probability) < LEAST_ROWS:
        return
    _, said, came, counts = reliability(probability, outcome)
    kept = counts >= LEAST_ROWS / 5
    axes.plot(said[kept], came[kept], "o-", color=colour, markersize=3, linewidth=1.2, label=source)


def _reliability_frame(axes: "Axes", title: str) -> None:
    axes.plot([0, 1], [0, 1], "--", color="#999999", linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("said", fontsize=8)
    axes.set_ylabel("came true", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(color="#eeeeee")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7, loc="upper left")


def _correlation_bars(axes: "Axes", source: str, scores: dict, colour: str) -> None:
    units = scores["action_units"]
    for place, unit in enumerate(units.values()):
        score = unit["correlation"]
        if score["value"] is None:
            continue
        axes.bar(place, score["value"], color=colour, width=0.7)
        if score["low"] is not None:
            axes.plot([place, place], [score["low"], score["high"]], color="black", linewidth=1)
    axes.set_xticks(range(len(units)), list(units), fontsize=7)
    axes.set(xlim=(-0.6, len(units) - 0.4), ylim=(-0.5, 1))
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_title(
        f"{source}: AU correlation, 95 % over {scores['people']:,} people", fontsize=9, loc="left"
    )
    axes.tick_params(axis="y", labelsize=7)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#eeeeee")


# Failures ----------------------------------------------------------------------------------------------------------


def draw_failures(path: Path, rows: FrameDataset, answers: Answers, sources: Sequence[str]) -> None:
    """`failures.png`: of each source the surest wrong expressions and the largest errors of action units.

    Args:
        path: the PNG file; written beside its place and renamed.
        rows: the split.
        answers: to all of its images.
        sources: whose crops are shown; only where their people agreed to it or it is otherwise in order.
    """
    from matplotlib.figure import Figure

    lines = [(source, kind) for source in sources for kind in ("expression", "action unit")]
    figure = Figure(figsize=(1.9 * WORST, 2.5 * len(lines)), layout="constrained")
    for line, (source, kind) in enumerate(lines):
        own = torch.tensor([name == source for name in rows.sources])
        find = worst_expressions if kind == "expression" else worst_action_units
        for place, (number, label, output) in enumerate(find(answers, own, WORST)):
            axes = figure.add_subplot(len(lines), WORST, line * WORST + place + 1)
            axes.imshow(rows[number]["crop"].numpy())
            axes.set_axis_off()
            axes.set_title(f"{source}\nlabel: {label}\noutput: {output}", fontsize=7)
    _save(figure, path)


def worst_expressions(answers: Answers, own: Tensor, most: int) -> list[tuple[int, str, str]]:
    """The images whose wrong expression is the likeliest: number, label and output in words.

    Args:
        answers: to N images.
        own: (N,) bool, among which to look.
        most: how many.
    """
    confidence, named = answers.probabilities.max(-1)
    wrong = own & (answers.expression != NO_CLASS) & (named != answers.expression)
    order = torch.where(wrong, confidence, -1.0).argsort(descending=True, stable=True)[
        : min(most, int(wrong.sum()))
    ]
    return [
        (
            number,
            EXPRESSIONS[int(answers.expression[number])],
            f"{EXPRESSIONS[int(named[number])]} {confidence[number]:.2f}",
        )
        for number in order.tolist()
    ]


def worst_action_units(answers: Answers, own: Tensor, most: int) -> list[tuple[int, str, str]]:
    """The images with the largest error of one unit, each once; as `worst_expressions`."""
    target = presence_target(answers.intensity)
    error, place = (answers.presence - target).abs().nan_to_num(-1.0).max(-1)
    chosen = torch.where(own, error, -1.0)
    order = chosen.argsort(descending=True, stable=True)[: min(most, int((chosen >= 0).sum()))]
    found = []
    for number in order.tolist():
        unit = int(place[number])
        name = action_unit_name(answers.action_units[unit])
        label = f"{name} {answers.intensity[number, unit]:.2f}"
        found.append((number, label, f"{name} {answers.presence[number, unit]:.2f}"))
    return found


def _save(figure: "Figure", path: Path) -> None:
    staging = path.with_name(f".{path.name}.tmp")
    figure.savefig(staging, format="png", dpi=110)
    staging.replace(path)
