"""The report on an extractor as a Markdown page and pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mma_mrnnet.analysis.extractor_scores import (
    Answers,
)
from mma_mrnnet.analysis.markdown import format_interval, format_number, render_page
from mma_mrnnet.files import replaced_file
from mma_mrnnet.metrics import reliability
from mma_mrnnet.model.labels import (
    EXPRESSIONS,
    NO_CLASS,
    action_unit_name,
    is_present,
    presence_target,
)
from mma_mrnnet.results import (
    CourseScores,
    EvaluationResults,
    ScoreInterval,
    SourceScores,
    TimeCourseScores,
)
from mma_mrnnet.training.datasets import FrameDataset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN_UNITS = (4, 12, 25)
"""Units with a reliability curve: those that are frequent in photos."""

LEAST_ROWS = 20
"""Least number of images for a curve; each point needs a fifth of that."""

WORST = 6
"""Crops shown per kind of failure and source."""


# The page ---------------------------------------------------------------------------------------

LABEL_KINDS = {
    "human": "by people",
    "pseudo": "another model's",
    "constructed": "known by construction",
    "simulated": "a simulator's",
    "unknown": "of unknown origin",
}

Cells = dict[str, str]


def make_page(results: EvaluationResults) -> str:
    """Return `evaluation.md`: all numbers to compare, by source or over clips."""
    if results.time_courses is not None:
        return _make_page_of_clips(results)
    sources, data, other = results.sources, results.data, results.against
    people = f"{data.people:,} people"
    if data.people >= data.images:
        people = "as many people, or people without names: then intervals are over images"
    summary = {source: _summarise(scores) for source, scores in sources.items()}
    talkers = [
        [source, str(found.images), *map(format_number, found.mean_expression.values())]
        for source, found in results.neutral_talkers.items()
        if found.images
    ]
    return render_page(
        "evaluation.md.j2",
        results=results,
        people=people,
        label_kinds=LABEL_KINDS,
        expressions=list(EXPRESSIONS),
        models=[results.model, *([other.model] if other else [])],
        sources=list(sources),
        summary=_turn(summary),
        units={
            "correlation with the intensity labels": _list_units(sources, "correlation"),
            "F1 of presence (intensity .4 or more)": _list_units(sources, "f1"),
        },
        calibration=[
            [source, *_list_calibration(scores).values()] for source, scores in sources.items()
        ],
        steadiness={
            source: rows for source, one in sources.items() if (rows := _list_steadiness(one))
        },
        talkers=talkers,
        compared=_compare(results),
    )


def _make_page_of_clips(results: EvaluationResults) -> str:
    other = results.against
    both = [results.time_courses, *([other.time_courses] if other else [])]
    scores = [one for one in both if one is not None]
    units = sorted({unit for one in scores for unit in one.by_unit})
    clips = results.time_courses.clips if results.time_courses else {}
    return render_page(
        "time_courses.md.j2",
        results=results,
        models=[results.model.name, *([other.model.name] if other else [])],
        scores=_turn({str(place): _summarise_courses(one) for place, one in enumerate(scores)}),
        units=[[unit, *(format_number(one.by_unit.get(unit)) for one in scores)] for unit in units],
        clips=[[name, *_describe_course(clip)] for name, clip in clips.items()],
    )


def _summarise_courses(scores: TimeCourseScores) -> Cells:
    means = {name: format_number(value) for name, value in scores.mean_pearson.items()}
    return {
        f"mean Pearson of {scores.cells:,} cells": _format_interval(scores.pearson),
        "averaged with the mirrored crop": means["averaged"],
        "of the mirrored crop": means["mirrored"],
        "darkened to a third": means["dark"],
        "each clip shifted by its lag": means["at_lag"],
        "lag, median of the clips": _format_lag(scores.lag_frames, scores.lag_s),
        "agreement with the mirrored crop": format_number(scores.mirror_agreement),
        f"jitter ({scores.still_neighbours:,} still neighbours)": format_number(scores.jitter),
        "jitter of the reference": format_number(scores.reference_jitter),
    }


def _describe_course(clip: CourseScores) -> list[str]:
    counts = map(str, (clip.frames, clip.without_face, clip.units))
    return [*counts, format_number(clip.mean_pearson), _format_lag(clip.lag_frames, clip.lag_s)]


def _format_lag(frames: float | None, seconds: float | None) -> str:
    return "-" if frames is None or seconds is None else f"{frames:g} frames, {seconds:.2f} s"


def _summarise_steadiness(scores: SourceScores) -> Cells:
    found = scores.steadiness
    if found is None or not found.units:
        return {}
    means = {name: format_number(value) for name, value in found.mean_correlation.items()}
    names = ("mirror_agreement", "relative_jitter")
    agreement, jitter = (format_number(found.mean(name)) for name in names)
    return {
        f"mean correlation of {len(found.units)} units": means["as_is"],
        "averaged with the mirrored crop": means["averaged"],
        "darkened to a third": means["dark"],
        "agreement with the mirrored crop, mean": agreement,
        "jitter, mean": jitter,
        "jitter of AU12": format_number(found.relative_jitter.get("AU12")),
    }


def _list_steadiness(scores: SourceScores) -> list[list[str]]:
    """Return a row per unit of the means: mirror, darkness, jitter."""
    found = scores.steadiness
    if found is None:
        return []
    kinds = (found.mirror_agreement, found.dark_loss, found.relative_jitter, found.jitter)
    return [
        [unit, format_number(scores.action_units[unit].correlation.value)]
        + [format_number(kind.get(unit)) for kind in kinds]
        for unit in found.units
    ]


def _turn(columns: Mapping[str, Cells]) -> list[list[str]]:
    names = next(iter(columns.values()))
    return [[name, *(column[name] for column in columns.values())] for name in names]


def _format_interval(score: ScoreInterval) -> str:
    return format_interval(score.value, score.low, score.high)


def _summarise(scores: SourceScores) -> Cells:
    expression, smiling = scores.expression, scores.smiling_against_neutral
    return {
        "images (people)": f"{scores.images:,} ({scores.people:,})",
        "AU correlation, mean": _format_interval(scores.mean_action_unit_correlation),
        "of AUs 4, 7, 12, 25": _format_interval(scores.mean_correlation_of_common_units),
        "AU F1, mean": _format_interval(scores.mean_action_unit_f1),
        "expression images": f"{expression.images:,}",
        "expression macro F1": _format_interval(expression.macro_f1),
        "expression balanced accuracy": _format_interval(expression.balanced_accuracy),
        "smiling / neutral images": f"{smiling.smiling} / {smiling.neutral}",
        "smiling or neutral, balanced accuracy": _format_interval(smiling.balanced_accuracy),
        "smiling or neutral, AUC": format_number(smiling.auc),
        "valence CCC": _format_interval(scores.valence_arousal.valence),
        "arousal CCC": _format_interval(scores.valence_arousal.arousal),
    }


def _list_calibration(scores: SourceScores) -> Cells:
    values = scores.calibration.to_json().items()
    return {name.replace("_", " "): format_number(value) for name, value in values}


def _list_units(sources: Mapping[str, SourceScores], score: str) -> list[list[str]]:
    columns: dict[str, Cells] = {}
    for source, scores in sources.items():
        columns[source] = {
            name: f"{_format_interval(getattr(unit, score))} ({unit.present})"
            if unit.annotated
            else "no labels"
            for name, unit in scores.action_units.items()
        }
    return _turn(columns)


def _compare(results: EvaluationResults) -> list[list[str]]:
    """Return rows with the scores of both models, without counts and missing scores."""
    if results.against is None:
        return []
    rows = []
    for source, theirs in results.against.sources.items():
        pair = (results.sources[source], theirs)
        both = [
            {**_summarise(one), **_summarise_steadiness(one), **_list_calibration(one)}
            for one in pair
        ]
        for name, ours in both[0].items():
            other = both[1].get(name, "-")
            if "images" not in name and (ours, other) != ("-", "-"):
                rows.append([f"{source}: {name}", ours, other])
    return rows


# Pictures ---------------------------------------------------------------------------------------


def draw_scores(path: Path, answers: Mapping[str, Answers]) -> None:
    """Draw the reliability of expressions and common units by source (`answers`) as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 3.6), layout="constrained")
    for column, unit in enumerate((None, *SHOWN_UNITS)):
        axes = figure.add_subplot(1, 1 + len(SHOWN_UNITS), column + 1)
        for place, (source, own) in enumerate(answers.items()):
            said, outcome = _pair_expressions(own) if unit is None else _pair_unit(own, unit)
            if len(said) >= LEAST_ROWS:
                _draw_reliability(axes, said, outcome, label=source, color=f"C{place}")
        _frame_reliability(axes, "expressions" if unit is None else action_unit_name(unit))
    _save(figure, path)


def _pair_expressions(answers: Answers) -> tuple[Tensor, Tensor]:
    """Return the probability of the likeliest expression, and whether it is right."""
    labelled = answers.expression != NO_CLASS
    confidence, named = answers.probabilities[labelled].max(-1)
    return confidence, named == answers.expression[labelled]


def _pair_unit(answers: Answers, unit: int) -> tuple[Tensor, Tensor]:
    """Return probability and presence of a unit on the images annotated for it."""
    if unit not in answers.action_units:
        return torch.zeros(0), torch.zeros(0, dtype=torch.bool)
    place = answers.action_units.index(unit)
    known = ~answers.intensity[:, place].isnan()
    return answers.presence[known, place], is_present(answers.intensity[known, place])


def _draw_reliability(
    axes: "Axes", probability: Tensor, outcome: Tensor, *, label: str, color: str
) -> None:
    _, said, came, counts = reliability(probability, outcome)
    kept = counts >= LEAST_ROWS / 5
    axes.plot(said[kept], came[kept], "o-", color=color, markersize=3, linewidth=1.2, label=label)


def _frame_reliability(axes: "Axes", title: str) -> None:
    axes.plot([0, 1], [0, 1], "--", color="#999999", linewidth=0.8)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("said", fontsize=8)
    axes.set_ylabel("came true", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(color="#eeeeee")
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7, loc="upper left")


def draw_failures(path: Path, rows: FrameDataset, answers: Answers, sources: Sequence[str]) -> None:
    """Draw the most confident wrong expressions and largest unit errors as a PNG file.

    `rows` is the split, and `answers` cover all its images. Name in `sources` only those whose
    people agreed to be shown.
    """
    from matplotlib.figure import Figure

    lines = [
        (source, find) for source in sources for find in (find_wrong_expressions, find_wrong_units)
    ]
    figure = Figure(figsize=(1.9 * WORST, 2.5 * len(lines)), layout="constrained")
    for line, (source, find) in enumerate(lines):
        own = torch.tensor([name == source for name in rows.sources])
        for column, (number, label, output) in enumerate(find(answers, own, WORST)):
            axes = figure.add_subplot(len(lines), WORST, line * WORST + column + 1)
            axes.imshow(rows[number]["crop"].numpy())
            axes.set_axis_off()
            axes.set_title(f"{source}\nlabel: {label}\noutput: {output}", fontsize=7)
    _save(figure, path)


def find_wrong_expressions(answers: Answers, own: Tensor, most: int) -> list[tuple[int, str, str]]:
    """Find the `most` images with the most probable wrong expression.

    `own` is (N,) bool, the images to search. Returns number, label and output of each image.
    """
    confidence, named = answers.probabilities.max(-1)
    wrong = own & (answers.expression != NO_CLASS) & (named != answers.expression)
    found = []
    for number in _rank(torch.where(wrong, confidence, -1.0), most):
        label = EXPRESSIONS[int(answers.expression[number])]
        output = f"{EXPRESSIONS[int(named[number])]} {confidence[number]:.2f}"
        found.append((number, label, output))
    return found


def find_wrong_units(answers: Answers, own: Tensor, most: int) -> list[tuple[int, str, str]]:
    """Find the images with the largest error of one unit; as `find_wrong_expressions`."""
    errors = (answers.presence - presence_target(answers.intensity)).abs().nan_to_num(-1.0)
    error, place = errors.max(-1)
    found = []
    for number in _rank(torch.where(own, error, -1.0), most):
        unit = int(place[number])
        name = action_unit_name(answers.action_units[unit])
        label = f"{name} {answers.intensity[number, unit]:.2f}"
        found.append((number, label, f"{name} {answers.presence[number, unit]:.2f}"))
    return found


def _rank(values: Tensor, most: int) -> list[int]:
    """Return the indices of the largest non-negative values, largest first."""
    order = values.argsort(descending=True, stable=True)
    return order[: min(most, int((values >= 0).sum()))].tolist()


def _save(figure: "Figure", path: Path) -> None:
    with replaced_file(path) as staging:
        figure.savefig(staging, format="png", dpi=110)
