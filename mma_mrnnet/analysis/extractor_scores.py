"""Scores of an extractor on the labelled face crops of one source."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from mma_mrnnet import metrics
from mma_mrnnet.analysis.copies import score_steadiness
from mma_mrnnet.metrics import People, WeightedScores
from mma_mrnnet.model.labels import (
    EXPRESSIONS,
    NO_CLASS,
    PRESENT_PROBABILITY,
    action_unit_name,
    is_present,
    neutral_talkers,
)
from mma_mrnnet.results import (
    CalibrationScores,
    EvaluatedExpressions,
    EvaluatedSmiles,
    EvaluatedUnit,
    ScoreInterval,
    SourceScores,
    TalkerScores,
    ValenceArousalScores,
)
from mma_mrnnet.training.datasets import FrameDataset

COMMON_UNITS = (4, 7, 12, 25)
"""Units that are frequent enough to judge in posed photos of calm and smiling people."""

LEAST_PRESENT = 10
"""A unit's F1 counts in the mean if at least so many images show it (our choice)."""

HAPPINESS, NEUTRAL = EXPRESSIONS.index("happiness"), EXPRESSIONS.index("neutral")

# Answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answers:
    """N labelled images and their outputs; labels are NaN or -100 where unlabelled.

    Attributes:
        intensity: (N, A) labels.
        expression: (N,) labels.
        valence_arousal: (N, 2) labels.
        affect: (N, 2 + 7 + A) outputs, in the order of `affect_names`.
        copies: (N, 3, A) outputs for mirrored, dark and disturbed copies.
    """

    action_units: tuple[int, ...]
    subjects: np.ndarray
    intensity: Tensor
    expression: Tensor
    valence_arousal: Tensor
    affect: Tensor
    copies: Tensor

    @classmethod
    def join(cls, rows: FrameDataset, affect: Tensor, copies: Tensor) -> Self:
        """Combine the labels of a split with its (N, 2 + 7 + A) outputs."""
        subjects = np.asarray(rows.subjects, dtype=str)
        labels = (rows.intensity, rows.expression, rows.valence_arousal)
        return cls(rows.action_units, subjects, *labels, affect, copies)

    @property
    def probabilities(self) -> Tensor:
        """(N, 7) probabilities of the expressions."""
        return self.affect[:, 2:9]

    @property
    def presence(self) -> Tensor:
        """(N, A) probabilities of the action units."""
        return self.affect[:, 9:]

    @property
    def named(self) -> Tensor:
        """(N,) most probable expressions."""
        return self.probabilities.argmax(-1)

    def select(self, chosen: Tensor) -> Self:
        """Return the images selected by an (N,) bool mask."""
        parts = ("intensity", "expression", "valence_arousal", "affect", "copies")
        kept = {name: getattr(self, name)[chosen] for name in parts}
        return replace(self, subjects=self.subjects[chosen.numpy()], **kept)


def split_by_source(answers: Answers, sources: np.ndarray) -> dict[str, Answers]:
    """Return the answers by source; `sources` holds one name per image."""
    return {
        str(source): answers.select(torch.from_numpy(sources == source))
        for source in np.unique(sources)
    }


# Scores -----------------------------------------------------------------------------------------


def score_source(answers: Answers) -> SourceScores:
    """Return all scores of one source."""
    people = People(answers.subjects.tolist())
    correlate = _correlate(answers)

    def count_f1(weights: Tensor | None) -> Tensor:
        return metrics.f1_scores(called, present, annotated, weights)

    annotated, present = ~answers.intensity.isnan(), is_present(answers.intensity)
    called = answers.presence >= PRESENT_PROBABILITY
    shown = (present & annotated).sum(0)
    correlations, f1 = people.intervals(correlate), people.intervals(count_f1)
    common = torch.tensor([unit in COMMON_UNITS for unit in answers.action_units])
    units = {
        action_unit_name(unit): EvaluatedUnit(
            correlation=ScoreInterval.of(correlations[place]),
            f1=ScoreInterval.of(f1[place]),
            annotated=int(annotated[:, place].sum()),
            present=int(shown[place]),
            predicted=int((called & annotated)[:, place].sum()),
        )
        for place, unit in enumerate(answers.action_units)
    }
    return SourceScores(
        images=len(answers.subjects),
        people=people.count,
        action_units=units,
        mean_action_unit_correlation=ScoreInterval.of(people.mean_interval(correlate)),
        mean_action_unit_f1=ScoreInterval.of(
            people.mean_interval(count_f1, shown >= LEAST_PRESENT)
        ),
        mean_correlation_of_common_units=ScoreInterval.of(people.mean_interval(correlate, common)),
        expression=_score_expressions(answers, people),
        smiling_against_neutral=_score_smiling(answers, people),
        valence_arousal=_score_valence_arousal(answers, people),
        calibration=_score_calibration(answers),
        steadiness=score_steadiness(
            answers.action_units, answers.intensity, answers.presence, answers.copies
        ),
    )


def _correlate(answers: Answers) -> WeightedScores:
    """Return a function: row weights -> correlations of presence and intensity."""

    def correlate(weights: Tensor | None) -> Tensor:
        scores = metrics.pearson_scores(answers.presence, answers.intensity, weights)
        return metrics.count_constant_as_zero(scores, answers.intensity, weights)

    return correlate


def _score_expressions(answers: Answers, people: People) -> EvaluatedExpressions:
    given = (answers.named, answers.expression, len(EXPRESSIONS))
    f1 = people.mean_interval(lambda weights: metrics.class_f1_scores(*given, weights))
    recall = people.mean_interval(lambda weights: metrics.class_recalls(*given, weights))
    return EvaluatedExpressions(
        images=int((answers.expression != NO_CLASS).sum()),
        macro_f1=ScoreInterval.of(f1),
        balanced_accuracy=ScoreInterval.of(recall),
        confusion=metrics.count_confusions(*given).tolist(),
        names=list(EXPRESSIONS),
    )


def _score_smiling(answers: Answers, people: People) -> EvaluatedSmiles:
    smiling, neutral = answers.expression == HAPPINESS, answers.expression == NEUTRAL
    two = answers.probabilities[:, [NEUTRAL, HAPPINESS]].double().clamp(min=1e-12)
    share = two[:, 1] / two.sum(1)
    labels = torch.where(smiling, 1, torch.where(neutral, 0, NO_CLASS))
    named = (share > 0.5).long()
    both = torch.full((2,), bool(smiling.any() and neutral.any()))
    recall = people.mean_interval(
        lambda weights: metrics.class_recalls(named, labels, 2, weights), both
    )
    chosen = smiling | neutral
    return EvaluatedSmiles(
        smiling=int(smiling.sum()),
        neutral=int(neutral.sum()),
        balanced_accuracy=ScoreInterval.of(recall),
        auc=float(metrics.area_under_roc(share[chosen], smiling[chosen])),
    )


def _score_valence_arousal(answers: Answers, people: People) -> ValenceArousalScores:
    prediction, target = answers.affect[:, :2], answers.valence_arousal

    def concord(weights: Tensor | None) -> Tensor:
        scores = metrics.concordance_scores(prediction, target, weights)
        return metrics.count_constant_as_zero(scores, target, weights)

    valence, arousal = people.intervals(concord)
    return ValenceArousalScores(
        images=int((~target.isnan()).any(1).sum()),
        valence=ScoreInterval.of(valence),
        arousal=ScoreInterval.of(arousal),
    )


def _score_calibration(answers: Answers) -> CalibrationScores:
    labelled = answers.expression != NO_CLASS
    truth = torch.zeros(int(labelled.sum()), len(EXPRESSIONS))
    truth.scatter_(1, answers.expression[labelled].unsqueeze(1), 1.0)
    brier = ((answers.probabilities[labelled] - truth) ** 2).sum(1).mean()
    return CalibrationScores(
        expression_ece=metrics.expression_calibration_error(
            answers.probabilities, answers.expression
        ),
        expression_brier=float(brier),
        action_unit_ece=metrics.presence_calibration_error(answers.presence, answers.intensity),
    )


def score_talkers(answers: Answers) -> TalkerScores:
    """Score calm talkers: no expression label, and only lips or jaw are active."""
    talking = neutral_talkers(answers.intensity, answers.action_units)
    chosen = answers.select(talking & (answers.expression == NO_CLASS))
    mean = chosen.probabilities.double().mean(0).tolist()
    return TalkerScores(len(chosen.subjects), dict(zip(EXPRESSIONS, mean, strict=True)))
