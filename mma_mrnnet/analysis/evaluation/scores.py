"""What an extractor's answers to the labelled crops of one source are worth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mma_mrnnet.analysis.evaluation.people import (
    People,
    class_f1_of,
    concordances,
    confusions,
    correlations,
    f1_of,
    moments,
    presences,
    recalls_of,
)
from mma_mrnnet.metrics import (
    area_under_roc,
    expression_calibration_error,
    presence_calibration_error,
)
from mma_mrnnet.model.labels import (
    EXPRESSIONS,
    NO_CLASS,
    PRESENT_PROBABILITY,
    VALENCE_AROUSAL,
    action_unit_name,
    is_present,
    neutral_talkers,
)
from mma_mrnnet.training.datasets import FrameDataset

COMMON_UNITS = (4, 7, 12, 25)
"""The units that posed photos of calm and smiling people show often enough to be judged there."""

LEAST_PRESENT = 10
"""Images that must show a unit before its F1 counts in the mean (our choice)."""

PHOTOS = frozenset({"canada", "congress", "london"})
"""Sources of the labelled crops whose action units a landmark model read off the photo."""

HAPPINESS, NEUTRAL = EXPRESSIONS.index("happiness"), EXPRESSIONS.index("neutral")


@dataclass(frozen=True)
class Answers:
    """N labelled images and what the model says of them.

    Attributes:
        action_units: the units of A columns.
        subjects: (N,) names of people.
        intensity: (N, A) labels; NaN where unlabelled.
        expression: (N,) labels; -100 where unlabelled.
        valence_arousal: (N, 2) labels; NaN where unlabelled.
        affect: (N, 2 + 7 + A) outputs, in the order of `affect_names`.
    """

    action_units: tuple[int, ...]
    subjects: np.ndarray
    intensity: Tensor
    expression: Tensor
    valence_arousal: Tensor
    affect: Tensor

    @property
    def probabilities(self) -> Tensor:
        """(N, 7) of the expressions."""
        return self.affect[:, 2:9]

    @property
    def presence(self) -> Tensor:
        """(N, A) probabilities of the action units."""
        return self.affect[:, 9:]

    def of(self, chosen: Tensor) -> "Answers":
        """Some of the images: (N,) bool or their numbers."""
        parts = ("intensity", "expression", "valence_arousal", "affect")
        kept = {name: getattr(self, name)[chosen] for name in parts}
        return replace(self, subjects=self.subjects[chosen.numpy()], **kept)


def answers_of(rows: FrameDataset, affect: Tensor, action_units: Sequence[int]) -> Answers:
    """The labels of a split beside the (N, 2 + 7 + A) outputs for it."""
    subjects = np.asarray(rows.subjects, dtype=str)
    return Answers(
        tuple(action_units), subjects, rows.intensity, rows.expression, rows.valence_arousal, affect
    )


def source_report(answers: Answers) -> dict:
    """All scores of one source; see `mma-mrnnet evaluate` in the guide for what is in it."""
    people = People(answers.subjects)
    return {
        "images": len(answers.subjects),
        "people": people.count,
        **_action_unit_scores(answers, people),
        "expression": _expression_scores(answers, people),
        "smiling_against_neutral": _smiling_scores(answers, people),
        "valence_arousal": _valence_arousal_scores(answers, people),
        "calibration": _calibration(answers),
    }


def mean_correlation(answers: Answers) -> float:
    """Mean correlation of the units whose labels vary, without an interval; NaN where there is none."""
    return float(correlations(moments(answers.presence, answers.intensity).sum(0)).nanmean())


def expression_macro_f1(answers: Answers) -> float:
    """Macro F1 of the expressions that occur, without an interval; NaN where no image is labelled."""
    named = answers.probabilities.argmax(-1)
    return float(
        class_f1_of(confusions(named, answers.expression, len(EXPRESSIONS)).sum(0)).nanmean()
    )


def talkers_report(answers: Answers) -> dict:
    """What the model takes calm talkers for: faces without an expression label that only part the lips or the jaw."""
    talking = neutral_talkers(answers.intensity, answers.action_units) & (
        answers.expression == NO_CLASS
    )
    chosen = answers.of(talking)
    mean = chosen.probabilities.double().mean(0)
    return {
        "images": len(chosen.subjects),
        "mean_expression": dict(zip(EXPRESSIONS, mean.tolist(), strict=True)),
    }


def _action_unit_scores(answers: Answers, people: People) -> dict:
    annotated, present = ~answers.intensity.isnan(), is_present(answers.intensity)
    called = answers.presence >= PRESENT_PROBABILITY
    two_columns = moments(answers.presence, answers.intensity)  # (N, 6, A)
    found = presences(called, present, annotated)  # (N, 3, A)
    correlation, f1 = people.intervals(two_columns, correlations), people.intervals(found, f1_of)
    common = [place for place, unit in enumerate(answers.action_units) if unit in COMMON_UNITS]
    units = {
        action_unit_name(unit): {
            "correlation": correlation[place],
            "f1": f1[place],
            "annotated": int(annotated[:, place].sum()),
            "present": int((present & annotated)[:, place].sum()),
            "predicted": int((called & annotated)[:, place].sum()),
        }
        for place, unit in enumerate(answers.action_units)
    }
    return {
        "action_units": units,
        "mean_action_unit_correlation": people.mean_interval(two_columns, correlations),
        "mean_action_unit_f1": people.mean_interval(
            found, f1_of, found[:, 1].sum(0) >= LEAST_PRESENT
        ),
        "mean_correlation_of_common_units": people.mean_interval(
            two_columns[..., common], correlations
        ),
    }


def _expression_scores(answers: Answers, people: People) -> dict:
    parts = confusions(answers.probabilities.argmax(-1), answers.expression, len(EXPRESSIONS))
    return {
        "images": int((answers.expression != NO_CLASS).sum()),
        "macro_f1": people.mean_interval(parts, class_f1_of),
        "balanced_accuracy": people.mean_interval(parts, recalls_of),
        "confusion": parts.sum(0).long().tolist(),
        "names": list(EXPRESSIONS),
    }


def _smiling_scores(answers: Answers, people: People) -> dict:
    """Happiness and neutral alone, told apart by which of the two is likelier."""
    smiling, neutral = answers.expression == HAPPINESS, answers.expression == NEUTRAL
    two = answers.probabilities[:, [NEUTRAL, HAPPINESS]].double().clamp(min=1e-12)
    share = two[:, 1] / two.sum(1)
    labels = torch.where(smiling, 1, torch.where(neutral, 0, NO_CLASS))
    parts = confusions((share > 0.5).long(), labels, 2)
    counted = torch.full((2,), bool(smiling.any() and neutral.any()))
    chosen = smiling | neutral
    return {
        "smiling": int(smiling.sum()),
        "neutral": int(neutral.sum()),
        "balanced_accuracy": people.mean_interval(parts, recalls_of, counted),
        "auc": float(area_under_roc(share[chosen], smiling[chosen])),
    }


def _valence_arousal_scores(answers: Answers, people: People) -> dict:
    parts = moments(answers.affect[:, :2], answers.valence_arousal)
    scores = people.intervals(parts, concordances)
    return {
        "images": int((~answers.valence_arousal.isnan()).any(1).sum()),
        **dict(zip(VALENCE_AROUSAL, scores, strict=True)),
    }


def _calibration(answers: Answers) -> dict:
    labelled = answers.expression != NO_CLASS
    truth = torch.zeros(int(labelled.sum()), len(EXPRESSIONS))
    truth.scatter_(1, answers.expression[labelled].unsqueeze(1), 1.0)
    return {
        "expression_ece": expression_calibration_error(answers.probabilities, answers.expression),
        "expression_brier": float(((answers.probabilities[labelled] - truth) ** 2).sum(1).mean()),
        "action_unit_ece": presence_calibration_error(answers.presence, answers.intensity),
    }
