"""Scores of a whole split, never of a batch; all take row weights, for the bootstrap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mma_mrnnet.model.labels import NO_CLASS, is_present

if TYPE_CHECKING:
    import evaluate

LEAST_VARIANCE = 1e-10
"""Relative to a column's squared range; a resample with less variance counts as constant."""

# Correlations ----------------------------------------------------------------------------------


def pearson_scores(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return (..., K) float64 Pearson correlations of each target over a split.

    `prediction` and `target` are (N, K), NaN where unlabelled; `weights` are (..., N) or None
    for 1 each. NaN with fewer than two labelled rows or a constant side.
    """
    _, var_x, var_y, covariance = _moments(prediction, target, weights)
    return covariance / (var_x * var_y).sqrt()


def concordance_scores(prediction: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the concordance correlations (Lin, Biometrics, 1989); see `pearson_scores`."""
    difference, var_x, var_y, covariance = _moments(prediction, target, weights)
    return 2 * covariance / (var_x + var_y + difference**2)


def _moments(
    prediction: Tensor, target: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean difference, two variances (NaN if constant), covariance; (..., K) float64."""
    weights = _weights_of(target, weights)
    if len(target) == 0:
        nothing = torch.full((*weights.shape[:-1], target.shape[1]), torch.nan, dtype=torch.float64)
        return nothing, nothing, nothing, nothing
    labelled = ~target.isnan()
    count = weights @ labelled.double()
    # Subtract the means over all rows first, so that sums of squares stay precise.
    x, x_mean = _centred(prediction.double(), labelled)
    y, y_mean = _centred(target.double(), labelled)
    x_shift, y_shift = weights @ x / count, weights @ y / count
    var_x = _unless_constant(weights @ x**2 / count - x_shift**2, x, labelled)
    var_y = _unless_constant(weights @ y**2 / count - y_shift**2, y, labelled)
    covariance = weights @ (x * y) / count - x_shift * y_shift
    return (x_mean + x_shift) - (y_mean + y_shift), var_x, var_y, covariance


def _weights_of(rows: Tensor, weights: Tensor | None) -> Tensor:
    return torch.ones(len(rows), dtype=torch.float64) if weights is None else weights.double()


def _centred(values: Tensor, labelled: Tensor) -> tuple[Tensor, Tensor]:
    zero = torch.zeros((), dtype=torch.float64)
    mean = torch.where(labelled, values, zero).sum(0) / labelled.sum(0)
    return torch.where(labelled, values - mean, zero), mean


def _unless_constant(variance: Tensor, values: Tensor, labelled: Tensor) -> Tensor:
    highest = values.masked_fill(~labelled, -torch.inf).amax(0)
    lowest = values.masked_fill(~labelled, torch.inf).amin(0)
    spread = highest - lowest
    constant = (spread <= 0) | (variance <= LEAST_VARIANCE * spread**2)
    return torch.where(constant, torch.nan, variance)


def mean_where_labels_vary(scores: Tensor, target: Tensor) -> float:
    """Return the mean over the targets whose labels vary; NaN where none do.

    A constant output counts as 0: otherwise a task that collapsed would drop out of the mean
    and could win the best epoch. `scores` are (K,) correlations, NaN where undefined; `target`
    is (N, K), NaN where unlabelled.
    """
    return float(count_constant_as_zero(scores, target).nanmean())


def count_constant_as_zero(scores: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return (..., K) correlations, 0 where only the prediction is constant; other NaN stay."""
    _, _, var_y, _ = _moments(target, target, weights)
    return torch.where(scores.isnan() & ~var_y.isnan(), 0.0, scores)


def mean_absolute_errors(
    prediction: Tensor, target: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Return the mean absolute error of each target; (..., K) float64, NaN without a label."""
    weights = _weights_of(target, weights)
    errors = (prediction.double() - target.double()).abs()
    known = ~errors.isnan()
    return weights @ errors.nan_to_num(0.0) / (weights @ known.double())


# Classes ---------------------------------------------------------------------------------------


def f1_scores(
    predicted: Tensor, present: Tensor, annotated: Tensor, weights: Tensor | None = None
) -> Tensor:
    """Return F1 of each binary target over its annotated rows.

    The (N, A) bool inputs are the prediction, the truth, and whether there is a label.
    `weights` are (..., N); None means 1 each. The result is (..., A) float64; NaN without a
    positive row.
    """
    weights = _weights_of(present, weights)
    hits = weights @ (predicted & present & annotated).double()
    positives = weights @ (present & annotated).double()
    called = weights @ (predicted & annotated).double()
    return torch.where(positives > 0, 2 * hits / (positives + called), torch.nan)


def class_f1_scores(
    predicted: Tensor, labels: Tensor, classes: int, weights: Tensor | None = None
) -> Tensor:
    """Return F1 of each class over the labelled rows.

    `predicted` and `labels` are (N,) class ids, label -100 means unlabelled; `classes` is C,
    and `weights` are (..., N) or None for 1 each. The result is (..., C) float64; NaN for a
    class without labels.
    """
    ids = torch.arange(classes)
    annotated = (labels != NO_CLASS)[:, None].expand(-1, classes)
    return f1_scores(predicted[:, None] == ids, labels[:, None] == ids, annotated, weights)


def class_recalls(
    predicted: Tensor, labels: Tensor, classes: int, weights: Tensor | None = None
) -> Tensor:
    """Return the recall of each class, as `class_f1_scores`; the mean is balanced accuracy."""
    weights = _weights_of(labels, weights)
    is_class = labels[:, None] == torch.arange(classes)
    right = is_class & (predicted == labels)[:, None]
    positives = weights @ is_class.double()
    return torch.where(positives > 0, weights @ right.double() / positives, torch.nan)


def macro_f1(predicted: Tensor, labels: Tensor) -> float:
    """Return the mean F1 over the classes that occur; NaN without labels.

    `predicted` and `labels` are (N,) class ids; label -100 means unlabelled.
    """
    classes = int(labels.max()) + 1 if len(labels) else 0
    return float(class_f1_scores(predicted, labels, max(classes, 0)).nanmean())


def count_confusions(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return (C, C) int64 counts: rows are labels, columns predictions; -100 is skipped."""
    labelled = labels != NO_CLASS
    places = labels[labelled] * classes + predicted[labelled]
    return torch.bincount(places, minlength=classes**2).view(classes, classes)


def area_under_roc(score: Tensor, positive: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the probability that a positive row scores above a negative one; ties count half.

    `score` is (N,) float, `positive` (N,) bool, and `weights` (..., N) or None for 1 each. The
    result is (...) float64 in [0, 1]; NaN if one side is empty.
    """
    score, positive = torch.as_tensor(score), torch.as_tensor(positive)
    weights = _weights_of(score, weights)
    values, place = score.unique(return_inverse=True)  # ascending; equal scores share a place
    empty = torch.zeros(*weights.shape[:-1], len(values), dtype=torch.float64)
    positives = empty.index_add(-1, place, weights * positive)
    negatives = empty.index_add(-1, place, weights * ~positive)
    below = negatives.cumsum(-1) - negatives
    won = (positives * (below + negatives / 2)).sum(-1)
    return won / (positives.sum(-1) * negatives.sum(-1))


# Calibration -----------------------------------------------------------------------------------


def expected_calibration_error(probability: Tensor, outcome: Tensor, bins: int = 10) -> float:
    """Return the mean distance between predicted probability and observed share over bins.

    Bins have equal width and are weighted by their rows (Naeini, Cooper & Hauskrecht, AAAI
    2015). With few rows the error is biased upwards. `probability` is (N,) in [0, 1],
    `outcome` (N,) bool. The result is in [0, 1]; NaN without rows.
    """
    if len(probability) == 0:
        return float("nan")
    _, said, came, counts = reliability(probability, outcome, bins)
    return float(((said - came).abs() * counts / counts.sum()).nansum())


def reliability(
    probability: Tensor, outcome: Tensor, bins: int = 10
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return lower edge, mean probability and outcome share (NaN if empty), and rows per bin."""
    probability, outcome = probability.double(), outcome.double()
    place = (probability * bins).long().clamp(0, bins - 1)  # 1.0 belongs to the last bin
    empty = torch.zeros(bins, dtype=torch.float64)
    counts = empty.index_add(0, place, torch.ones_like(probability))
    said = empty.index_add(0, place, probability) / counts
    came = empty.index_add(0, place, outcome) / counts
    return torch.arange(bins).double() / bins, said, came, counts


def expression_calibration_error(probability: Tensor, labels: Tensor) -> float:
    """Return the ECE of the most probable expression; NaN without labels.

    `probability` is (N, 7); `labels` are (N,) class ids, -100 where unlabelled.
    """
    labelled = labels != NO_CLASS
    confidence, named = probability[labelled].max(-1)
    return expected_calibration_error(confidence, named == labels[labelled])


def presence_calibration_error(probability: Tensor, intensity: Tensor) -> float:
    """Return the mean ECE over the action units with labels; NaN without any.

    `probability` of presence and `intensity` labels are (N, A); NaN where unlabelled.
    """
    errors = []
    for said, label in zip(probability.unbind(1), intensity.unbind(1), strict=True):
        known = ~label.isnan()
        if known.any():
            errors.append(expected_calibration_error(said[known], is_present(label[known])))
    return sum(errors) / len(errors) if errors else float("nan")


# Intervals over people -------------------------------------------------------------------------

RESAMPLES = 1000
WEIGHTS = 10_000_000  # in memory at once: 80 MB

WeightedScores = Callable[[Tensor | None], Tensor]
"""Maps row weights (..., N), or None for 1 each, to (..., K) scores."""


@dataclass(frozen=True)
class Interval:
    """A score with its 95 % interval; the limits are NaN with too few people."""

    value: float
    low: float
    high: float


class People:
    """The people behind N rows, with 1,000 bootstrap resamples of them from a fixed seed.

    Rows of one person are dependent, so an interval over rows would be too narrow. `subjects`
    holds one name per row; a row without a name is its own person.
    """

    def __init__(self, subjects: Sequence[str]) -> None:
        subjects = [name or f"\0{place}" for place, name in enumerate(subjects)]
        names, number = np.unique(np.asarray(subjects, dtype=str), return_inverse=True)
        self.count = len(names)
        self._person = torch.from_numpy(number.reshape(-1))  # (N,)
        even = np.full(self.count, 1 / max(self.count, 1))
        drawn = np.random.default_rng(0).multinomial(self.count, even, RESAMPLES)
        self._draws = torch.from_numpy(drawn).double()  # (R, people)

    def intervals(self, scores: WeightedScores) -> list[Interval]:
        """Return K scores with percentile intervals.

        `scores` is for example `lambda weights: pearson_scores(prediction, target, weights)`.
        Resamples in which a score is undefined do not count for it. Limits are NaN with fewer
        than two people, or if fewer than half of the resamples count.
        """
        values = scores(None).double()  # (K,)
        at_once = max(1, WEIGHTS // max(len(self._person), 1))
        parts = [scores(draws[:, self._person]) for draws in self._draws.split(at_once)]
        resampled = torch.cat(parts).double()  # (R, K)
        quantiles = torch.tensor([0.025, 0.975], dtype=torch.float64)
        limits = resampled.nanquantile(quantiles, dim=0)  # (2, K)
        defined = (~resampled.isnan()).double().mean(0)
        if self.count < 2:
            defined.zero_()
        limits[:, defined < 0.5] = torch.nan
        return [Interval(*row) for row in torch.stack([values, *limits], dim=1).tolist()]

    def mean_interval(self, scores: WeightedScores, counted: Tensor | None = None) -> Interval:
        """Return the mean of the scores that are defined on all rows, with its interval.

        A resample in which one of them is undefined does not count, because its mean would
        cover other scores. `counted` is (K,) bool, the scores to include; None: all.
        """
        kept = ~scores(None).isnan()
        if counted is not None:
            kept &= counted
        return self.intervals(lambda weights: scores(weights)[..., kept].mean(-1, keepdim=True))[0]


# For JSON --------------------------------------------------------------------------------------


def rounded(value: Any, digits: int = 4) -> Any:
    """Return a copy of nested values for strict JSON: floats rounded, NaN as None.

    `digits` are decimals, or significant digits below 0.1, so that small learning rates
    survive.
    """
    if isinstance(value, dict):
        return {str(key): rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return rounded(value.tolist(), digits)
    if isinstance(value, float):
        if not np.isfinite(value):
            return None
        return round(value, digits) if abs(value) >= 0.1 else float(f"{value:.{digits}g}")
    return value


# For `evaluate` --------------------------------------------------------------------------------

EVALUATE_MODULES = ("mean_pearson", "concordance", "action_unit_f1")
"""Folders of `evaluate_modules`, each a module for `evaluate.load`."""


def load_metric(name: str) -> "evaluate.Metric":
    """Load an `evaluate` module of this package, one of `EVALUATE_MODULES`.

    The README.md in its folder describes inputs and outputs. `evaluate` is imported on use,
    because that takes seconds and models do not need it. An unknown name raises ValueError.
    """
    if name not in EVALUATE_MODULES:
        raise ValueError(f"a metric must be one of {', '.join(EVALUATE_MODULES)}; got {name!r}")
    import evaluate

    return evaluate.load(str(files("mma_mrnnet") / "evaluate_modules" / name))


def describe_metric(description: str, inputs: str, citation: str = "") -> "evaluate.MetricInfo":
    """Return the description of a module that takes rows of numbers."""
    import datasets
    import evaluate

    numbers = datasets.Sequence(datasets.Value("float64"))
    return evaluate.MetricInfo(
        description=description,
        citation=citation,
        inputs_description=inputs,
        features=datasets.Features({"predictions": numbers, "references": numbers}),
    )


def parse_rows(predictions: Sequence, references: Sequence) -> tuple[Tensor, Tensor]:
    """Convert rows of `evaluate` into two (N, K) float64 tensors; None in references is NaN.

    Raises:
        ValueError: no rows, rows of different lengths, an infinite label, or a labelled row
            with a prediction that is not finite.
    """
    if not len(references):
        raise ValueError(
            "no rows were added; a score needs the predictions and references of a split"
        )
    widths = {len(row) for side in (predictions, references) for row in side}
    if len(widths) != 1 or len(predictions) != len(references):
        raise ValueError(
            "predictions and references must be N rows of the same K numbers each; got "
            f"{len(predictions)} and {len(references)} rows of {sorted(widths)} numbers"
        )
    # numpy converts None into NaN.
    prediction = torch.from_numpy(np.array(predictions, np.float64))
    target = torch.from_numpy(np.array(references, np.float64))
    if (infinite := target.isinf().any(1)).any():
        raise ValueError(
            "references must be finite, or NaN where unlabelled; "
            f"row {_first(infinite)} is infinite"
        )
    if (unpredicted := (~prediction.isfinite() & ~target.isnan()).any(1)).any():
        raise ValueError(
            "predictions must be finite wherever there is a label: leave out a clip that has no "
            "prediction, or give it a number such as the training labels' mean; "
            f"row {_first(unpredicted)} is NaN or infinite"
        )
    return prediction, target


def _first(rows: Tensor) -> int:
    return int(rows.nonzero()[0])


def check_unit_interval(values: Tensor, what: str) -> Tensor:
    """Return the values; raise ValueError, starting with `what`, if one is outside [0, 1]."""
    outside = ((values < 0) | (values > 1)).any(1)
    if outside.any():
        row = _first(outside)
        raise ValueError(
            f"{what} must lie in [0, 1], NaN where unlabelled: marks such as -1, 9 or 999 must "
            "become NaN, and intensities up to 5 must be divided by 5; "
            f"row {row} is {values[row].tolist()}"
        )
    return values


def name_scores(scores: Tensor, names: Sequence[str] | None) -> list[float] | dict[str, float]:
    """Return (K,) scores as a list, or a dictionary by K different names (else ValueError)."""
    if names is None:
        return scores.tolist()
    if isinstance(names, str) or len(set(names)) != len(names) or len(names) != len(scores):
        raise ValueError(f"names must be {len(scores)} different ones, one a target; got {names!r}")
    return dict(zip(names, scores.tolist(), strict=True))
