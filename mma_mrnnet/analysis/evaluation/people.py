"""Scores with confidence intervals over people: sums of each person, drawn again and again, and scores of the sums.

A score here is a function of sums over images, so that a thousand resamples are one product of matrices.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from mma_mrnnet.model.labels import NO_CLASS

RESAMPLES = 1000
LEAST_VARIANCE = 1e-10
"""Of a label or an output; below, it does not vary: what is left are rounding errors of sums."""

Interval = dict[str, float]


class People:
    """The people behind N images, and a thousand draws of as many people with replacement, from a fixed seed.

    Images of one person are no independent witnesses: an interval over images would be too narrow.

    Args:
        subjects: of the N images; one without a name is a person of its own.
    """

    def __init__(self, subjects: Sequence[str]) -> None:
        subjects = [name or f"\0{place}" for place, name in enumerate(subjects)]
        names, number = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
        self.count = len(names)
        self._person = torch.from_numpy(number.reshape(-1))  # (N,)
        even = np.full(self.count, 1 / max(self.count, 1))
        drawn = np.random.default_rng(0).multinomial(self.count, even, RESAMPLES)  # (R, P)
        self._draws = torch.from_numpy(drawn).double()

    def intervals(self, parts: Tensor, scores_of: Callable[[Tensor], Tensor]) -> list[Interval]:
        """Scores with their 95 % intervals: `value`, `low`, `high`.

        A resample that leaves a score undefined (nobody in it shows the unit) does not count for that score. The
        limits are NaN where there are fewer than two people, or where fewer than half of the resamples count.

        Args:
            parts: (N, ...) what each image adds to the sums.
            scores_of: (..., sums) to (..., K) scores.
        """
        parts = parts.double()
        flat = parts.reshape(len(parts), -1)
        sums = torch.zeros(self.count, flat.shape[1], dtype=torch.float64).index_add_(
            0, self._person, flat
        )
        rows = torch.cat([sums.sum(0, keepdim=True), self._draws @ sums])  # (1 + R, sums)
        scores = scores_of(rows.reshape(len(rows), *parts.shape[1:])).double()  # (1 + R, K)
        limits = scores[1:].nanquantile(
            torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0
        )  # (2, K)
        known = ~scores[1:].isnan()
        limits[:, known.double().mean(0) < 0.5] = torch.nan
        if self.count < 2:
            limits = torch.full_like(limits, torch.nan)
        columns = zip(scores[0].tolist(), *limits.tolist(), strict=True)
        return [{"value": value, "low": low, "high": high} for value, low, high in columns]

    def mean_interval(
        self, parts: Tensor, scores_of: Callable[[Tensor], Tensor], counted: Tensor | None = None
    ) -> Interval:
        """As `intervals`, for the mean of the K scores that all images together define.

        A resample that leaves one of these undefined does not count: without it, the mean would be of other scores.

        Args:
            parts: as in `intervals`.
            scores_of: as in `intervals`.
            counted: (K,) bool, the scores that may count at all; None: each.
        """

        def mean_of(sums: Tensor) -> Tensor:
            scores = scores_of(sums)  # (1 + R, K)
            kept = ~scores[0].isnan() if counted is None else ~scores[0].isnan() & counted
            return scores[:, kept].mean(-1, keepdim=True)  # NaN where one is, or where none is kept

        return self.intervals(parts, mean_of)[0]


# Two columns of numbers --------------------------------------------------------------------------------------------


def moments(prediction: Tensor, target: Tensor) -> Tensor:
    """What each image adds to counts, means and products of K columns, where it has a label.

    Args:
        prediction: (N, K).
        target: (N, K); NaN where unlabelled.

    Returns:
        (N, 6, K) float64: 1, x, y, x², y², xy, both sides measured from the target's mean, which keeps sums exact.
    """
    labelled = ~target.isnan()
    middle = target.double().nanmean(0).nan_to_num(0.0)
    zero = torch.zeros((), dtype=torch.float64)
    x = torch.where(labelled, prediction.double() - middle, zero)
    y = torch.where(labelled, target.double() - middle, zero)
    return torch.stack([labelled.double(), x, y, x * x, y * y, x * y], dim=1)


def _second_moments(sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Difference of means, two variances and the covariance, (..., K) each; NaN where the target does not vary."""
    count, x, y, xx, yy, xy = (sums / sums[..., :1, :].clamp(min=1e-12)).unbind(-2)
    var_x, var_y, covariance = xx - x * x, yy - y * y, xy - x * y
    unknown = (count < 0.5) | (var_y < LEAST_VARIANCE)
    return x - y, var_x, torch.where(unknown, torch.nan, var_y), covariance


def correlations(sums: Tensor) -> Tensor:
    """Pearson correlations of (..., 6, K) sums of `moments`: (..., K).

    NaN where the labels do not vary, 0 where they do and the output does not.
    """
    _, var_x, var_y, covariance = _second_moments(sums)
    flat = (var_x < LEAST_VARIANCE) & ~var_y.isnan()
    return torch.where(flat, 0.0, covariance / (var_x * var_y).clamp(min=LEAST_VARIANCE**2).sqrt())


def concordances(sums: Tensor) -> Tensor:
    """Concordance correlations of (..., 6, K) sums of `moments`: (..., K); NaN where the labels do not vary."""
    difference, var_x, var_y, covariance = _second_moments(sums)
    return 2 * covariance / (var_x + var_y + difference**2)


# Presence ----------------------------------------------------------------------------------------------------------


def presences(called: Tensor, present: Tensor, annotated: Tensor) -> Tensor:
    """(N, 3, A) what each image adds to hits, positives and calls, of three times (N, A) bool."""
    return torch.stack(
        [called & present & annotated, present & annotated, called & annotated], dim=1
    )


def f1_of(sums: Tensor) -> Tensor:
    """F1 of (..., 3, A) sums of `presences`: (..., A); NaN where nothing is positive."""
    hits, positives, called = sums.unbind(-2)
    return torch.where(positives > 0, 2 * hits / (positives + called), torch.nan)


# Classes -----------------------------------------------------------------------------------------------------------


def confusions(named: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(N, classes, classes) what each image adds to the confusion, rows labels; 0 where the label is -100."""
    labelled = (labels != NO_CLASS).nonzero().squeeze(1)
    parts = torch.zeros(len(labels), classes, classes)
    parts[labelled, labels[labelled], named[labelled]] = 1
    return parts


def class_f1_of(confusion: Tensor) -> Tensor:
    """F1 of each class, of (..., C, C) counts: (..., C); NaN where it does not occur."""
    positives, called = confusion.sum(-1), confusion.sum(-2)
    hits = confusion.diagonal(dim1=-2, dim2=-1)
    return torch.where(positives > 0, 2 * hits / (positives + called), torch.nan)


def recalls_of(confusion: Tensor) -> Tensor:
    """Recall of each class, of (..., C, C) counts: (..., C); NaN where it does not occur."""
    positives = confusion.sum(-1)
    hits = confusion.diagonal(dim1=-2, dim2=-1)
    return torch.where(positives > 0, hits / positives, torch.nan)
