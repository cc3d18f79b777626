"""Scores of a whole split, never of a batch: Pearson, CCC, F1, AUC. Correlations are the objectives', in float64."""

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mma_mrnnet.model.labels import NO_CLASS
from mma_mrnnet.model.losses import concordance, pearson

if TYPE_CHECKING:
    import evaluate


def _score(function: object, prediction: Tensor, target: Tensor) -> Tensor:
    """(K,) float64, NaN for a column without two labelled rows or where one side does not vary."""
    prediction, target = prediction.double(), target.double()
    scores = function(prediction, target)
    for column in range(target.shape[1]):
        labelled = ~target[:, column].isnan()
        sides = (prediction[labelled, column], target[labelled, column])
        if labelled.sum() < 2 or any(float(side.max() - side.min()) == 0.0 for side in sides):
            scores[column] = float("nan")
    return scores


def pearson_scores(prediction: Tensor, target: Tensor) -> Tensor:
    """Pearson correlation of each target over a split.

    Args:
        prediction: (N, K).
        target: (N, K); NaN where unlabelled.

    Returns:
        (K,) float64; NaN where it is not defined (fewer than two labelled rows, or a constant side).
    """
    return _score(pearson, prediction, target)


def concordance_scores(prediction: Tensor, target: Tensor) -> Tensor:
    """Concordance correlation of each target over a split; shapes and NaN as `pearson_scores`."""
    return _score(concordance, prediction, target)


def mean_where_labels_vary(scores: Tensor, target: Tensor) -> float:
    """Mean over the targets whose labels vary; an output that does not vary there counts as 0.

    Otherwise a task that collapsed to a constant would drop out of the mean, and could win the best epoch.

    Args:
        scores: (K,), NaN where not defined.
        target: (N, K); NaN where unlabelled.

    Returns:
        NaN where no target's labels vary.
    """
    labelled = [column[~column.isnan()] for column in target.unbind(1)]
    varies = torch.tensor(
        [len(column) > 1 and bool(column.max() > column.min()) for column in labelled]
    )
    return float(scores.nan_to_num(0.0)[varies].mean())


def mean_absolute_errors(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of each target over its labelled rows; (K,) float64, NaN where there is none."""
    return (prediction.double() - target.double()).abs().nanmean(0)


def f1_scores(predicted: Tensor, present: Tensor, annotated: Tensor) -> Tensor:
    """F1 of each binary target over its annotated rows.

    Args:
        predicted: (N, A) bool.
        present: (N, A) bool, the truth.
        annotated: (N, A) bool, False where there is no label.

    Returns:
        (A,) float64; NaN where no annotated row is positive, since F1 then says nothing.
    """
    hits = (predicted & present & annotated).sum(0).double()
    positives = (present & annotated).sum(0).double()
    called = (predicted & annotated).sum(0).double()
    scores = 2 * hits / (positives + called)
    return torch.where(positives > 0, scores, torch.full_like(scores, float("nan")))


def macro_f1(predicted: Tensor, labels: Tensor) -> float:
    """Mean F1 over the classes that occur among the labelled rows.

    Args:
        predicted: (N,) class ids.
        labels: (N,) class ids; -100 where unlabelled.

    Returns:
        A number in [0, 1]; NaN where no row is labelled.
    """
    labelled = labels != NO_CLASS
    predicted, labels = predicted[labelled], labels[labelled]
    classes = labels.unique()
    if len(classes) == 0:
        return float("nan")
    one_hot = f1_scores(
        predicted[:, None] == classes,
        labels[:, None] == classes,
        torch.ones(len(labels), len(classes), dtype=torch.bool),
    )
    return float(one_hot.mean())


def area_under_roc(score: np.ndarray, positive: np.ndarray) -> float:
    """Chance that a positive row scores above a negative one, ties counted half.

    Args:
        score: (N,) float.
        positive: (N,) bool.

    Returns:
        A number in [0, 1]; NaN where one side is empty.
    """
    positives, negatives = score[positive], score[~positive]
    if len(positives) == 0 or len(negatives) == 0:
        return float("nan")
    negatives = np.sort(negatives)  # not all pairs at once: a corpus of videos has 10^9 of them
    below, below_or_tied = (
        np.searchsorted(negatives, positives, side) for side in ("left", "right")
    )
    return float((below + below_or_tied).mean() / (2 * len(negatives)))


def expected_calibration_error(probability: Tensor, outcome: Tensor, bins: int = 10) -> float:
    """Mean distance between what was said and what came, over bins of equal width, each by its share of the rows.

    Source: Naeini, Cooper & Hauskrecht, AAAI 2015. Few rows make it larger than it is: a bin's share scatters.

    Args:
        probability: (N,) in [0, 1].
        outcome: (N,) bool, what came.
        bins: of equal width.

    Returns:
        A number in [0, 1]; NaN without a row.
    """
    _, said, came, counts = reliability(probability, outcome, bins)
    return (
        float(((said - came).abs() * counts / counts.sum()).nansum())
        if len(probability)
        else float("nan")
    )


def reliability(
    probability: Tensor, outcome: Tensor, bins: int = 10
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A reliability curve: lower edges, mean probability, share of outcomes and rows of each bin.

    Returns:
        Four times (bins,) float64; NaN for the two means of a bin without a row.
    """
    probability, outcome = probability.double(), outcome.double()
    place = (probability * bins).long().clamp(0, bins - 1)  # 1.0 belongs to the last one
    counts, said, came = (torch.zeros(bins, dtype=torch.float64) for _ in range(3))
    counts.index_add_(0, place, torch.ones_like(probability))
    said.index_add_(0, place, probability)
    came.index_add_(0, place, outcome)
    return torch.arange(bins).double() / bins, said / counts, came / counts, counts


def rounded(value: Any, digits: int = 4) -> Any:
    """A copy of nested dicts, lists, tensors and numbers with rounded floats, NaN as None: ready for strict JSON.

    `digits` are decimals, or significant digits below 0.1: a learning rate of 0.00003 does not become 0.
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


# For `evaluate` -----------------------------------------------------------------------------------------------------

EVALUATE_MODULES = ("mean_pearson", "concordance", "action_unit_f1")
"""The folders of `evaluate_modules`, each a module that `evaluate.load` takes."""


def load_metric(name: str) -> "evaluate.Metric":
    """An `evaluate` module of this package, ready for `add_batch` and `compute`; the same as loading its folder.

    `evaluate` is imported here, on use: it takes seconds, and models do not need it.

    Args:
        name: one of `EVALUATE_MODULES`; what each takes and gives is said in its folder's README.md.

    Raises:
        ValueError: no such module.
    """
    if name not in EVALUATE_MODULES:
        raise ValueError(f"a metric must be one of {', '.join(EVALUATE_MODULES)}; got {name!r}")
    import evaluate

    return evaluate.load(str(files("mma_mrnnet") / "evaluate_modules" / name))


def split_of_rows(predictions: Sequence, references: Sequence) -> tuple[Tensor, Tensor]:
    """What `evaluate` hands to a module, as the scores above take it.

    Args:
        predictions: N rows of K numbers.
        references: N rows of K numbers, NaN or None where unlabelled.

    Returns:
        Two (N, K) float64, NaN where unlabelled.

    Raises:
        ValueError: no row, rows of different lengths, a label that is infinite, or a labelled row whose prediction is
            no finite number.
    """
    if not len(references):
        raise ValueError(
            "no rows were added; a score needs the predictions and references of a split"
        )
    widths = {len(row) for side in (predictions, references) for row in side}
    if len(widths) != 1 or len(predictions) != len(references):
        raise ValueError(
            f"predictions and references must be N rows of the same K numbers each; got {len(predictions)} and "
            f"{len(references)} rows of {sorted(widths)} numbers"
        )
    # Through numpy, for which None is NaN.
    prediction, target = (
        torch.from_numpy(np.array(side, np.float64)) for side in (predictions, references)
    )
    if (infinite := target.isinf().any(1)).any():
        raise ValueError(
            f"references must be finite, or NaN where unlabelled; row {_first(infinite)} is infinite"
        )
    if (unpredicted := (~prediction.isfinite() & ~target.isnan()).any(1)).any():
        raise ValueError(
            "predictions must be finite wherever there is a label: leave a clip that has none out, or give it a number "
            f"such as the training labels' mean; row {_first(unpredicted)} is NaN or infinite"
        )
    return prediction, target


def _first(rows: Tensor) -> int:
    return int(rows.nonzero()[0])


def within_unit_interval(values: Tensor, what: str) -> Tensor:
    """The values as they are, NaN among them.

    Raises:
        ValueError: one is below 0 or above 1; the message starts with `what`.
    """
    outside = ((values < 0) | (values > 1)).any(1)
    if outside.any():
        row = _first(outside)
        raise ValueError(
            f"{what} must lie in [0, 1], NaN where unlabelled: a corpus's marks of its own, such as -1, 9 or 999, have "
            f"to become NaN, and intensities up to 5 be divided by 5; row {row} is {values[row].tolist()}"
        )
    return values


def by_target(scores: Tensor, names: Sequence[str] | None) -> list[float] | dict[str, float]:
    """(K,) scores as a list, or under the targets' names.

    Raises:
        ValueError: not K different names.
    """
    if names is None:
        return scores.tolist()
    if isinstance(names, str) or len(set(names)) != len(names) or len(names) != len(scores):
        raise ValueError(f"names must be {len(scores)} different ones, one a target; got {names!r}")
    return dict(zip(names, scores.tolist(), strict=True))
