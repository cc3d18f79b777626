"""How a trained extractor errs on labelled crops, as numbers that a simulator can repeat."""

import json
from collections.abc import Collection, Sequence
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
from mma_mrnnet.training.datasets import FrameDataset

Array = NDArray[np.float64]

LEAST_ROWS = 20
"""Fewer rows than this tell nothing: the number that they would give is null."""
LEAST_CROSS_TALK = 0.5
"""In logits: a unit at full strength that moves another's report by less counts as not moving it. Our choice."""
AT_REST = 0.15
"""Units below this intensity count as at rest. Our choice."""
SPEECH_UNITS = (25, 26)
"""The units of a mouth that talks: lips part, jaw drops."""


def extractor_errors(
    outputs: dict[str, Tensor],
    labels: dict[str, Tensor],
    rows: FrameDataset,
    action_units: Sequence[int],
    made_up_sources: Collection[str],
) -> dict:
    """How the reports differ from the labels: for all rows, for made faces, and for each source of images.

    A unit's reported logit is a straight line in its own intensity (`floor`, `slope`) plus what the other units'
    intensities add to it (`cross_talk`); what is left splits into a part that a person keeps and one that changes from
    image to image. All of it holds for faces like these: with made ones alone, not for photographs.

    Args:
        outputs: `valence_arousal` (N, 2), `expression_logits` (N, 7) and `action_unit_logits` (N, A), as the extractor
            gives them.
        labels: `valence_arousal_labels` (N, 2), NaN where unlabelled, and `expression_labels` (N,).
        rows: the N labelled crops, with their units' intensities, sources and people.
        action_units: the A units.
        made_up_sources: the sources whose faces were made, so that their labels are true by construction.

    Returns:
        By `all`, `made` (where there are such rows) and source: `rows`, `action_units`, `expressions`,
        `valence_arousal`, `neutral_talkers`. Null where fewer than 20 rows would tell. Logits are those that become
        probabilities; those of expressions are centred, so that each row's sum is 0.
    """
    reported = {name: value.double().cpu().numpy() for name, value in outputs.items()}
    true = {
        "valence_arousal": labels["valence_arousal_labels"].double().cpu().numpy(),
        "expression": labels["expression_labels"].cpu().numpy(),
        "intensity": rows.intensity.double().numpy(),
        "person": numbered(rows.subjects),
    }
    sources = np.array(rows.sources)
    made = np.isin(sources, list(made_up_sources))
    chosen = {"all": np.ones(len(rows), bool), "made": made}
    chosen |= {source: sources == source for source in sorted(set(rows.sources))}
    return {
        name: _errors_of(
            {key: value[part] for key, value in reported.items()},
            {key: value[part] for key, value in true.items()},
            action_units,
        )
        for name, part in chosen.items()
        if part.any()
    }


def recorded_errors(mma: str) -> dict:
    """The errors that stage 1 measured of the checkpoint in the folder `mma`.

    Raises:
        ValueError: the folder holds no results of a stage 1 that measured them, or they cannot be read.
    """
    folder = Path(mma)
    places = [folder / "results_mma.json", folder / "results.json"]
    for place in places:
        if not place.is_file():
            continue
        try:
            errors = json.loads(place.read_text("utf-8")).get("errors")
        except (ValueError, AttributeError) as problem:
            raise ValueError(f"{place}: not a stage's results: {problem}") from problem
        if errors:
            return errors
    raise ValueError(
        f"--mma {mma}: --data simulated:measured repeats the extractor's measured errors, and there are none under "
        f'"errors" in {", ".join(str(place) for place in places)}; stage 1 of this version records them'
    )


def numbered(subjects: Sequence[str]) -> NDArray[np.int64]:
    """(N,) a number for each person; -1 where the corpus does not name them."""
    _, number = np.unique(np.array(subjects), return_inverse=True)
    return np.where(np.array(subjects) == "", -1, number)


def _errors_of(
    reported: dict[str, Array], true: dict[str, NDArray], action_units: Sequence[int]
) -> dict:
    centred = reported["expression_logits"] - reported["expression_logits"].mean(
        1, keepdims=True
    )  # (N, 7)
    return {
        "rows": len(true["person"]),
        "action_units": {
            action_unit_name(unit): _unit_errors(
                column, reported["action_unit_logits"], true, action_units
            )
            for column, unit in enumerate(action_units)
        },
        "expressions": _expression_errors(centred, true),
        "valence_arousal": {
            name: _value_errors(
                reported["valence_arousal"][:, column], true["valence_arousal"][:, column], true
            )
            for column, name in enumerate(VALENCE_AROUSAL)
        },
        "neutral_talkers": _talkers(centred, reported["valence_arousal"], true, action_units),
    }


def _unit_errors(
    column: int, logits: Array, true: dict[str, NDArray], action_units: Sequence[int]
) -> dict | None:
    """Floor, slope, cross-talk and what is left, of one unit; null where its labels never vary."""
    intensity = true["intensity"]
    annotated = ~np.isnan(intensity[:, column])
    if annotated.sum() < LEAST_ROWS or np.ptp(intensity[annotated, column]) == 0:
        return None
    given = intensity[annotated]
    # Other units count where each of these rows has them: to fill in the missing ones would be to make them up.
    others = [
        other
        for other in range(len(action_units))
        if other != column and not np.isnan(given[:, other]).any() and np.ptp(given[:, other]) > 0
    ]
    others = others if len(given) >= LEAST_ROWS + len(others) else []
    weights, _ = _least_squares(given[:, [column, *others]], logits[annotated, column])
    others = [
        other
        for other, added in zip(others, weights[2:], strict=True)
        if abs(added) >= LEAST_CROSS_TALK
    ]
    weights, left = _least_squares(given[:, [column, *others]], logits[annotated, column])
    person, frame = spread_of(left, true["person"][annotated])
    return {
        "annotated": int(annotated.sum()),
        "floor": float(weights[0]),
        "slope": float(weights[1]),
        "person": person,
        "frame": frame,
        "cross_talk": {
            action_unit_name(action_units[other]): added
            for other, added in zip(others, weights[2:].tolist(), strict=True)
        },
    }


def _expression_errors(centred: Array, true: dict[str, NDArray]) -> dict | None:
    """What each expression is reported as, on average; null where one has hardly any row."""
    expression, labelled = true["expression"], true["expression"] != NO_CLASS
    of_class = [expression == number for number in range(len(EXPRESSIONS))]
    if min(rows.sum() for rows in of_class) < LEAST_ROWS:
        return None
    odds = np.exp(centred - centred.max(1, keepdims=True))
    probability = odds / odds.sum(1, keepdims=True)
    means = np.stack([centred[rows].mean(0) for rows in of_class])  # (7, 7)
    left = centred[labelled] - means[expression[labelled]]
    spreads = [
        spread_of(left[:, column], true["person"][labelled]) for column in range(len(EXPRESSIONS))
    ]
    return {
        "labelled": int(labelled.sum()),
        "mean_probability_rows_are_labels": [
            probability[rows].mean(0).tolist() for rows in of_class
        ],
        "mean_logits_rows_are_labels": means.tolist(),
        "person": dict(zip(EXPRESSIONS, (person for person, _ in spreads), strict=True)),
        "frame": dict(zip(EXPRESSIONS, (frame for _, frame in spreads), strict=True)),
    }


def _value_errors(reported: Array, label: Array, true: dict[str, NDArray]) -> dict | None:
    labelled = ~np.isnan(label)
    if labelled.sum() < LEAST_ROWS or np.ptp(label[labelled]) == 0:
        return None
    weights, left = _least_squares(label[labelled, None], reported[labelled])
    person, frame = spread_of(left, true["person"][labelled])
    return {
        "labelled": int(labelled.sum()),
        "offset": float(weights[0]),
        "gain": float(weights[1]),
        "person": person,
        "frame": frame,
    }


def _talkers(
    centred: Array, valence_arousal: Array, true: dict[str, NDArray], action_units: Sequence[int]
) -> dict | None:
    """What an open mouth alone adds to the report of a face at rest, at full opening."""
    mouth = [column for column, unit in enumerate(action_units) if unit in SPEECH_UNITS]
    rest = [column for column in range(len(action_units)) if column not in mouth]
    known = (~np.isnan(true["intensity"])).any(
        1
    )  # whoever has no unit label at all may show anything
    intensity = np.nan_to_num(true["intensity"])
    opening = intensity[:, mouth].max(1, initial=0)
    still = known & (intensity[:, rest].max(1, initial=0) < AT_REST)
    talkers, resting = still & (opening >= PRESENT_INTENSITY), still & (opening < AT_REST)
    if min(talkers.sum(), resting.sum()) < LEAST_ROWS:
        return None

    def added(reported: Array) -> list[float]:
        """Slope through what faces at rest are reported as."""
        change = reported[talkers] - reported[resting].mean(0)
        return ((opening[talkers] @ change) / (opening[talkers] ** 2).sum()).tolist()

    odds = np.exp(centred - centred.max(1, keepdims=True))
    probability = odds / odds.sum(1, keepdims=True)
    return {
        "rows": int(talkers.sum()),
        "at_rest": int(resting.sum()),
        "mean_probability": dict(
            zip(EXPRESSIONS, probability[talkers].mean(0).tolist(), strict=True)
        ),
        "mean_probability_at_rest": dict(
            zip(EXPRESSIONS, probability[resting].mean(0).tolist(), strict=True)
        ),
        "logits_added": dict(zip(EXPRESSIONS, added(centred), strict=True)),
        "valence_arousal_added": dict(zip(VALENCE_AROUSAL, added(valence_arousal), strict=True)),
    }


def _least_squares(given: Array, reported: Array) -> tuple[Array, Array]:
    """The constant and the weights of the given columns (1 + F,), and what they leave (N,)."""
    design = np.column_stack([np.ones(len(given)), given])
    weights = np.linalg.lstsq(design, reported)[0]
    return weights, reported - design @ weights


def spread_of(left: Array, person: NDArray[np.int64]) -> tuple[float, float]:
    """Standard deviations of what people keep and of what changes from one of their images to the next.

    One-way analysis of variance with random effects (Searle, Casella & McCulloch, Variance Components, 1992): the
    people's means vary by the person part and by the frame part over the number of their images.

    Args:
        left: (N,) residuals, N at least 1.
        person: (N,) numbers; -1 where unknown, which counts as a person of its own.

    Returns:
        The person's part and the frame's; all of it is the frame's where no person has two images.
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
    images = (rows - (counts**2).sum() / rows) / (people - 1)  # a person's, on average
    return float(np.sqrt(max(between - within, 0.0) / images)), float(np.sqrt(within))
