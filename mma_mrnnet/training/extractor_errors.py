"""Measure how a trained extractor errs on labelled crops, for a simulator to repeat."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mma_mrnnet.model.labels import (
    EXPRESSIONS,
    NO_CLASS,
    PRESENT_INTENSITY,
    VALENCE_AROUSAL,
    action_unit_name,
)
from mma_mrnnet.results import (
    ExpressionErrors,
    ExtractorErrors,
    MMAResults,
    TalkerErrors,
    UnitErrors,
    ValueErrors,
    read_results,
)
from mma_mrnnet.synthetic.extractor_noise import unit_evidence
from mma_mrnnet.training.datasets import FrameDataset

Array = NDArray[np.float64]

LEAST_ROWS = 20
"""With fewer rows a measurement is None."""
LEAST_CROSS_TALK = 0.5
"""In logits: weaker effects of a unit on another unit's report are dropped (our choice)."""
MOST_LOGIT = 6.9
"""Unit logits are clipped here (probability .999): beyond it they differ without a meaning."""
AT_REST = 0.15
"""A unit below this intensity is at rest (our choice)."""
SPEECH_UNITS = (25, 26)
"""The units of a talking mouth: lips part, jaw drop."""


@dataclass(frozen=True)
class _Crops:
    """N labelled crops with the extractor's reports; labels are NaN or -100 where unlabelled.

    Attributes:
        units: (N, A) reported logits.
        expressions: (N, 7) reported logits; each row is centred to sum 0.
        values: (N, 2) reported valence and arousal.
        person: (N,) numbers; -1 where unknown.
    """

    units: Array
    expressions: Array
    values: Array
    intensity: Array
    expression: NDArray[np.int64]
    valence_arousal: Array
    person: NDArray[np.int64]

    def select(self, chosen: NDArray[np.bool_]) -> "_Crops":
        return _Crops(**{name: value[chosen] for name, value in vars(self).items()})


def measure_errors(
    outputs: dict[str, Tensor],
    labels: dict[str, Tensor],
    rows: FrameDataset,
    action_units: Sequence[int],
    constructed_sources: Collection[str],
    *,
    graded_units: bool = False,
) -> dict[str, ExtractorErrors]:
    """Return how the reports differ from the labels, by `all`, `made` (if present) and source.

    A unit's logit is modelled as a line in its own intensity (`floor`, `slope`) plus
    contributions of other units (`cross_talk`); the residual is split into a constant part per
    person and a part per image. The result holds only for similar faces: made-up faces do not
    stand for photographs.

    Outputs and labels are named as in `MMAModel`. The labels of `constructed_sources` are true
    by construction. With `graded_units`, the line is in the log-odds of the unit's target.
    """
    logits = outputs["expression_logits"].double().cpu().numpy()
    crops = _Crops(
        units=outputs["action_unit_logits"].double().cpu().numpy().clip(-MOST_LOGIT, MOST_LOGIT),
        expressions=logits - logits.mean(1, keepdims=True),
        values=outputs["valence_arousal"].double().cpu().numpy(),
        intensity=rows.intensity.double().numpy(),
        expression=labels["expression_labels"].cpu().numpy(),
        valence_arousal=labels["valence_arousal_labels"].double().cpu().numpy(),
        person=number_people(rows.subjects),
    )
    sources = np.array(rows.sources)
    chosen = {"all": np.ones(len(rows), bool), "made": np.isin(sources, list(constructed_sources))}
    chosen |= {source: sources == source for source in sorted(set(rows.sources))}
    return {
        name: _measure(crops.select(part), action_units, graded_units)
        for name, part in chosen.items()
        if part.any()
    }


def read_errors(mma: str) -> dict[str, ExtractorErrors]:
    """Read the errors that stage 1 measured for the checkpoint in the folder `mma`.

    Raises ValueError if there are none or if they are unreadable.
    """
    places = [Path(mma, name) for name in (MMAResults.name_of_file, "results.json")]
    for place in places:
        if place.is_file():
            results = read_results(place)
            if isinstance(results, MMAResults) and results.errors:
                return results.errors
    raise ValueError(
        f"--mma {mma}: --data simulated:measured repeats the extractor's measured errors, and "
        f'there are none under "errors" in {", ".join(map(str, places))}; stage 1 of this version '
        "records them"
    )


def number_people(subjects: Sequence[str]) -> NDArray[np.int64]:
    """Return (N,) person numbers; -1 where the corpus gives no name."""
    _, number = np.unique(np.array(subjects), return_inverse=True)
    return np.where(np.array(subjects) == "", -1, number)


def _measure(crops: _Crops, action_units: Sequence[int], graded_units: bool) -> ExtractorErrors:
    names = [action_unit_name(unit) for unit in action_units]
    return ExtractorErrors(
        rows=len(crops.person),
        action_units={
            name: _measure_unit(crops, column, names, graded_units)
            for column, name in enumerate(names)
        },
        expressions=_measure_expressions(crops),
        valence_arousal={
            name: _measure_value(crops, column) for column, name in enumerate(VALENCE_AROUSAL)
        },
        neutral_talkers=_measure_talkers(crops, action_units),
        graded_units=graded_units,
    )


def _measure_unit(crops: _Crops, column: int, names: list[str], graded: bool) -> UnitErrors | None:
    """Measure one unit; None if its labels are constant."""
    annotated = ~np.isnan(crops.intensity[:, column])
    given, logits = crops.intensity[annotated], crops.units[annotated, column]
    if len(given) < LEAST_ROWS or np.ptp(given[:, column]) == 0:
        return None
    # Use other units only if all these rows have labels for them; filling in would invent labels.
    complete = ~np.isnan(given).any(axis=0).reshape(-1)
    others = [
        other
        for other in range(len(names))
        if other != column and complete[other] and np.ptp(given[:, other]) > 0
    ]
    others = others if len(given) >= LEAST_ROWS + len(others) else []
    own = unit_evidence(given[:, column]) if graded else given[:, column]
    weights, _ = _fit_line(np.column_stack([own, given[:, others]]), logits)
    others = [
        other
        for other, added in zip(others, weights[2:], strict=True)
        if abs(added) >= LEAST_CROSS_TALK
    ]
    weights, left = _fit_line(np.column_stack([own, given[:, others]]), logits)
    person, frame = split_spread(left, crops.person[annotated])
    cross_talk = zip([names[other] for other in others], weights[2:].tolist(), strict=True)
    return UnitErrors(
        annotated=len(given),
        floor=float(weights[0]),
        slope=float(weights[1]),
        person=person,
        frame=frame,
        cross_talk=dict(cross_talk),
    )


def _measure_expressions(crops: _Crops) -> ExpressionErrors | None:
    """Average the report for each expression; None if one has too few rows."""
    labelled = crops.expression != NO_CLASS
    of_class = [crops.expression == number for number in range(len(EXPRESSIONS))]
    if min(rows.sum() for rows in of_class) < LEAST_ROWS:
        return None
    probability = _softmax(crops.expressions)
    means = np.stack([crops.expressions[rows].mean(0) for rows in of_class])  # (7, 7)
    left = crops.expressions[labelled] - means[crops.expression[labelled]]
    spreads = [split_spread(column, crops.person[labelled]) for column in left.T]
    people, frames = zip(*spreads, strict=True)
    return ExpressionErrors(
        labelled=int(labelled.sum()),
        mean_probability_rows_are_labels=[probability[rows].mean(0).tolist() for rows in of_class],
        mean_logits_rows_are_labels=means.tolist(),
        person=dict(zip(EXPRESSIONS, people, strict=True)),
        frame=dict(zip(EXPRESSIONS, frames, strict=True)),
    )


def _measure_value(crops: _Crops, column: int) -> ValueErrors | None:
    label = crops.valence_arousal[:, column]
    labelled = ~np.isnan(label)
    if labelled.sum() < LEAST_ROWS or np.ptp(label[labelled]) == 0:
        return None
    weights, left = _fit_line(label[labelled, None], crops.values[labelled, column])
    person, frame = split_spread(left, crops.person[labelled])
    return ValueErrors(int(labelled.sum()), float(weights[0]), float(weights[1]), person, frame)


def _measure_talkers(crops: _Crops, action_units: Sequence[int]) -> TalkerErrors | None:
    """Measure what a fully open mouth alone adds to the report of a face at rest."""
    mouth = [column for column, unit in enumerate(action_units) if unit in SPEECH_UNITS]
    rest = [column for column in range(len(action_units)) if column not in mouth]
    known = (~np.isnan(crops.intensity)).any(1)  # a face without unit labels may show anything
    intensity = np.nan_to_num(crops.intensity)
    opening = intensity[:, mouth].max(1, initial=0)
    still = known & (intensity[:, rest].max(1, initial=0) < AT_REST)
    talkers, resting = still & (opening >= PRESENT_INTENSITY), still & (opening < AT_REST)
    if min(talkers.sum(), resting.sum()) < LEAST_ROWS:
        return None

    def added(reported: Array) -> list[float]:
        """Fit a line to the mean reports of faces at rest and return the slope."""
        change = reported[talkers] - reported[resting].mean(0)
        return ((opening[talkers] @ change) / (opening[talkers] ** 2).sum()).tolist()

    def by_expression(values: list[float]) -> dict[str, float]:
        return dict(zip(EXPRESSIONS, values, strict=True))

    probability = _softmax(crops.expressions)
    return TalkerErrors(
        rows=int(talkers.sum()),
        at_rest=int(resting.sum()),
        mean_probability=by_expression(probability[talkers].mean(0).tolist()),
        mean_probability_at_rest=by_expression(probability[resting].mean(0).tolist()),
        logits_added=by_expression(added(crops.expressions)),
        valence_arousal_added=dict(zip(VALENCE_AROUSAL, added(crops.values), strict=True)),
    )


def _softmax(logits: Array) -> Array:
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def _fit_line(given: Array, reported: Array) -> tuple[Array, Array]:
    """Return intercept and weights of the given columns (1 + F,), and the residuals (N,)."""
    design = np.column_stack([np.ones(len(given)), given])
    weights: Array = np.linalg.lstsq(design, reported)[0].astype(np.float64)
    return weights, reported - design @ weights


def split_spread(left: Array, person: NDArray[np.int64]) -> tuple[float, float]:
    """Return two standard deviations of (N,) residuals: between people, and within a person.

    One-way random-effects ANOVA (Searle, Casella & McCulloch, Variance Components, 1992). N is
    at least 1; each row with `person` -1 counts as a separate person. If no person has two
    images, everything counts as within.
    """
    unknown = person < 0
    person = np.where(unknown, person.max(initial=0) + 1 + np.cumsum(unknown), person)
    _, place, counts = np.unique(person, return_inverse=True, return_counts=True)
    rows, people = len(left), len(counts)
    if people in (1, rows):
        return 0.0, float(left.std())
    means = np.bincount(place, left) / counts
    within = ((left - means[place]) ** 2).sum() / (rows - people)
    between = (counts * (means - left.mean()) ** 2).sum() / (people - 1)
    images = (rows - (counts**2).sum() / rows) / (people - 1)  # average number of images per person
    return float(np.sqrt(max(between - within, 0.0) / images)), float(np.sqrt(within))
