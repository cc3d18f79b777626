"""All objectives, masked: where a label is missing (NaN, or -100 for classes) nothing is lost and nothing is learnt.

Masking is by `where`, never by multiplying, so that a NaN label cannot reach a gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .labels import NO_CLASS

EPSILON = 1e-6


def _require_same_shape(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have one shape; got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )


def _moments(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Means, variances and covariance of each column over its labelled rows, in float32 or better."""
    _require_same_shape(prediction, target)
    labelled = ~target.isnan()  # (N, K)
    wide = torch.promote_types(prediction.dtype, torch.float32)
    count = labelled.sum(0).clamp(min=1)  # (K,)
    zero = prediction.new_zeros((), dtype=wide)
    x = torch.where(labelled, prediction.to(wide), zero)
    y = torch.where(labelled, target.to(wide), zero)
    mean_x, mean_y = x.sum(0) / count, y.sum(0) / count
    dx = torch.where(labelled, x - mean_x, zero)
    dy = torch.where(labelled, y - mean_y, zero)
    return mean_x - mean_y, (dx * dx).sum(0) / count, (dy * dy).sum(0) / count, (dx * dy).sum(0) / count, count


def concordance(prediction: Tensor, target: Tensor) -> Tensor:
    """Concordance correlation coefficient of each column (Lin, Biometrics, 1989).

    Rows whose target is NaN carry no label and are left out, column by column.

    Args:
        prediction: (N, K) float.
        target: (N, K) float, in the unit of `prediction`; NaN where unlabelled.

    Returns:
        (K,) float in [-1, 1]; 0 where a column has no labelled row or neither side varies.

    Raises:
        ValueError: the two shapes differ.
    """
    difference, var_x, var_y, covariance, _ = _moments(prediction, target)
    return 2 * covariance / (var_x + var_y + difference**2).clamp(min=EPSILON**2)


def pearson(prediction: Tensor, target: Tensor) -> Tensor:
    """Pearson correlation of each column over its labelled rows.

    Args:
        prediction: (N, K) float.
        target: (N, K) float; NaN where unlabelled.

    Returns:
        (K,) float in [-1, 1]; 0 where a column has no labelled row or one side does not vary (our choice: it avoids
        NaN and gives no gradient).

    Raises:
        ValueError: the two shapes differ.
    """
    _, var_x, var_y, covariance, _ = _moments(prediction, target)
    # The floor sits under the root: at zero variance the root's own gradient would be infinite.
    return covariance / (var_x * var_y).clamp(min=EPSILON**4).sqrt()


def _mean_over_labelled(values: Tensor, target: Tensor) -> Tensor:
    """Mean of (K,) values over the columns that carry at least two labels; a graph-connected 0 where none does."""
    counted = (~target.isnan()).sum(0) >= 2
    return torch.where(counted, values, torch.zeros_like(values)).sum() / counted.sum().clamp(min=1)


def pearson_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - mean Pearson over the targets (the paper's stage-2 loss); 0 where no column has two labelled rows.

    Args:
        prediction: (N, K) float.
        target: (N, K) float; NaN where unlabelled.

    Returns:
        Scalar in [0, 2].
    """
    any_labelled = ((~target.isnan()).sum(0) >= 2).any()
    return any_labelled.to(torch.float32) - _mean_over_labelled(pearson(prediction, target), target)


def concordance_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - mean CCC over the targets; shapes and masking as `pearson_loss`."""
    any_labelled = ((~target.isnan()).sum(0) >= 2).any()
    return any_labelled.to(torch.float32) - _mean_over_labelled(concordance(prediction, target), target)


def squared_error_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the labelled entries; 0 where there is none.

    Args:
        prediction: (N, K) float.
        target: (N, K) float; NaN where unlabelled.

    Returns:
        Scalar.
    """
    _require_same_shape(prediction, target)
    labelled = ~target.isnan()
    error = torch.where(labelled, prediction - target.nan_to_num(), torch.zeros_like(prediction))
    return error.square().sum() / labelled.sum().clamp(min=1)


def expression_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy over the rows that carry an expression; 0 where none does.

    Args:
        logits: (N, C) float.
        labels: (N,) int64 class ids; -100 where unlabelled.

    Returns:
        Scalar: the mean over labelled rows.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=NO_CLASS, reduction="sum")
    return total / (labels != NO_CLASS).sum().clamp(min=1)


def action_unit_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy over the annotated units of a row, then over the rows that have any.

    L = mean over rows of [1 / sum_i d_i] sum_i d_i BCE(p_i, y_i), d_i = 1 where unit i is annotated: an image with
    two annotated units weighs as much as one with seventeen (FaceBehaviorNet's form as we remember it; our choice).

    Args:
        logits: (N, A) float.
        targets: (N, A) float in [0, 1], probabilities of presence; NaN where not annotated.

    Returns:
        Scalar; 0 where no row has an annotated unit.
    """
    _require_same_shape(logits, targets)
    annotated = ~targets.isnan()  # (N, A)
    losses = F.binary_cross_entropy_with_logits(logits.float(), targets.float().nan_to_num(), reduction="none")
    per_row = torch.where(annotated, losses, torch.zeros_like(losses)).sum(-1) / annotated.sum(-1).clamp(min=1)
    return per_row.sum() / annotated.any(-1).sum().clamp(min=1)


def distribution_matching_loss(
    expression_logits: Tensor, action_unit_logits: Tensor, prior: Tensor, form: str = "kl"
) -> Tensor:
    """Ties the predicted action units to those the predicted expressions call for, on every row, labelled or not.

    With q_i = sum_e p(e) P(unit i | e) from the prior and p_i the unit's predicted probability:

    - `kl`: KL(Bernoulli(q) || Bernoulli(p)), gradient through both sides; zero loss and gradient at p = q. Our default.
    - `bce`: Bernoulli cross-entropy with q as a fixed soft target.
    - `literal`: -p log q, the form as we remember it from sibling papers: one-sided, smallest at p = 0.

    Args:
        expression_logits: (N, 7).
        action_unit_logits: (N, A).
        prior: (7, A) in [0, 1], P(unit | expression).
        form: `kl`, `bce` or `literal`.

    Returns:
        Scalar: the mean over rows of the mean over units.

    Raises:
        ValueError: an unknown form.
    """
    if form not in ("kl", "bce", "literal"):
        raise ValueError(f"form must be kl, bce or literal; got {form!r}")
    logits = action_unit_logits.float()
    expected = expression_logits.float().softmax(-1) @ prior.to(logits)  # (N, A), q
    expected = expected.clamp(EPSILON, 1 - EPSILON)
    if form == "literal":
        return -(logits.sigmoid() * expected.log()).mean()
    if form == "bce":
        return F.binary_cross_entropy_with_logits(logits, expected.detach())
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    divergence = expected * (expected.log() - log_p) + (1 - expected) * ((-expected).log1p() - log_not_p)
    return divergence.mean()
