"""All losses, masked: a missing label adds nothing to loss or gradient.

Missing labels are NaN, or -100 for classes. Masks use `where`, not a product, since
NaN times 0 is NaN.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .labels import EXPRESSIONS, NO_CLASS, PRESENT_PROBABILITY

EPSILON = 1e-6


def _require_same_shape(prediction: Tensor, target: Tensor) -> None:
    if prediction.shape != target.shape:
        raise ValueError(
            "prediction and target must have one shape; "
            f"got {tuple(prediction.shape)} and {tuple(target.shape)}"
        )


def _moments(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return mean difference, both variances, covariance, count: (K,) over labelled rows."""
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
    return (
        mean_x - mean_y,
        (dx * dx).sum(0) / count,
        (dy * dy).sum(0) / count,
        (dx * dy).sum(0) / count,
        count,
    )


def concordance(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the concordance correlation coefficient of each column (Lin, Biometrics, 1989).

    `prediction` and `target` are (N, K) float in the same unit, NaN if unlabelled. Returns (K,)
    float in [-1, 1]; 0 without a labelled row, or if neither side varies.

    Raises:
        ValueError: the shapes differ.
    """
    difference, var_x, var_y, covariance, _ = _moments(prediction, target)
    return 2 * covariance / (var_x + var_y + difference**2).clamp(min=EPSILON**2)


def pearson(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the Pearson correlation of each column over its labelled rows.

    `prediction` and `target` are (N, K) float, NaN if unlabelled. Returns (K,) float in [-1, 1];
    0 without a labelled row, or if one side does not vary (our choice: no NaN, no gradient).

    Raises:
        ValueError: the shapes differ.
    """
    _, var_x, var_y, covariance, _ = _moments(prediction, target)
    # Clamp before the root: its gradient is infinite at 0.
    return covariance / (var_x * var_y).clamp(min=EPSILON**4).sqrt()


def _mean_over_labelled(values: Tensor, target: Tensor) -> Tensor:
    """Average (K,) values over columns with at least two labels; 0 (differentiable) if none."""
    counted = (~target.isnan()).sum(0) >= 2
    return torch.where(counted, values, torch.zeros_like(values)).sum() / counted.sum().clamp(min=1)


def pearson_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute 1 - mean Pearson over the targets (the paper's stage-2 loss).

    `prediction` and `target` are (N, K) float, NaN if unlabelled. Returns a scalar in
    [0, 2]; 0 if no column has two labelled rows.
    """
    any_labelled = ((~target.isnan()).sum(0) >= 2).any()
    return any_labelled.to(torch.float32) - _mean_over_labelled(pearson(prediction, target), target)


def concordance_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute 1 - mean CCC over the targets; shapes and masks as in `pearson_loss`."""
    any_labelled = ((~target.isnan()).sum(0) >= 2).any()
    return any_labelled.to(torch.float32) - _mean_over_labelled(
        concordance(prediction, target), target
    )


def squared_error_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the mean squared error over the labelled entries of (N, K); 0 if there are none."""
    _require_same_shape(prediction, target)
    labelled = ~target.isnan()
    error = torch.where(labelled, prediction - target.nan_to_num(), torch.zeros_like(prediction))
    return error.square().sum() / labelled.sum().clamp(min=1)


def hide_quiet(labels: Tensor) -> Tensor:
    """Return labels (N, K) without those of quiet clips: all 0, at least one. They become NaN."""
    quiet = ((labels == 0) | labels.isnan()).all(1, keepdim=True)
    return labels.masked_fill(quiet, torch.nan)


def standardised_error_loss(prediction: Tensor, target: Tensor, deviations: Tensor) -> Tensor:
    """Compute the mean over units of the mean squared error in units of `deviations` (our choice).

    Rare and frequent units weigh the same. `prediction` and `target` are (N, A), NaN if
    unlabelled; `deviations` are (A,) positive. Returns a scalar, 0 if nothing is labelled.
    """
    _require_same_shape(prediction, target)
    labelled = ~target.isnan()  # (N, A)
    error = torch.where(labelled, prediction.float() - target.float().nan_to_num(), 0.0)
    per_unit = (error / deviations).square().sum(0) / labelled.sum(0).clamp(min=1)  # (A,)
    return per_unit.sum() / labelled.any(0).sum().clamp(min=1)


def expression_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the mean softmax cross-entropy over the labelled rows; 0 if there are none.

    `logits` are (N, C) float, `labels` (N,) int64 class ids, -100 if unlabelled.
    """
    total = F.cross_entropy(logits.float(), labels, ignore_index=NO_CLASS, reduction="sum")
    return total / (labels != NO_CLASS).sum().clamp(min=1)


def soft_expression_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross-entropy with target distributions (N, C); 0 if no row has one.

    A row without a target is NaN.
    """
    _require_same_shape(logits, targets)
    has_target = ~targets.isnan().any(-1)  # (N,)
    per_row = -(targets.nan_to_num() * logits.float().log_softmax(-1)).sum(-1)  # (N,)
    return torch.where(has_target, per_row, 0.0).sum() / has_target.sum().clamp(min=1)


def action_unit_loss(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Average the binary cross-entropy over each row's annotated units, then over the rows.

    L = mean over rows of [1 / sum_i d_i] sum_i d_i BCE(p_i, y_i), where d_i = 1 if unit i
    is annotated: an image with two annotated units counts as much as one with seventeen
    (our choice, after FaceBehaviorNet as we remember it).

    Args:
        logits: (N, A) float.
        targets: (N, A) float in [0, 1], probabilities of presence; NaN if not annotated.
        weights: (N, A) positive float, replaces d_i of annotated units; None means 1.

    Returns:
        Scalar; 0 if no row has an annotated unit.
    """
    _require_same_shape(logits, targets)
    annotated = ~targets.isnan()  # (N, A)
    losses = F.binary_cross_entropy_with_logits(
        logits.float(), targets.float().nan_to_num(), reduction="none"
    )
    weights = torch.where(
        annotated, torch.ones_like(losses) if weights is None else weights.to(losses), 0.0
    )  # (N, A)
    weighted = torch.where(annotated, weights * losses, torch.zeros_like(losses))
    per_row = weighted.sum(-1) / weights.sum(-1).clamp(min=EPSILON)
    return per_row.sum() / annotated.any(-1).sum().clamp(min=1)


def distribution_matching_loss(
    expression_logits: Tensor, action_unit_logits: Tensor, prior: Tensor, form: str = "kl"
) -> Tensor:
    """Compare predicted action units with those that the predicted expressions imply.

    Uses every row. q_i = sum_e p(e) P(unit i | e), with the prior; p_i is the unit's
    predicted probability. Forms:

    - `kl`: KL(Bernoulli(q) || Bernoulli(p)), gradients through both; our default.
    - `bce`: Bernoulli cross-entropy with q as a fixed soft target.
    - `literal`: -p log q, the form of sibling papers as we remember it; minimal at p = 0.

    Args:
        expression_logits: (N, 7).
        action_unit_logits: (N, A).
        prior: (7, A) in [0, 1], P(unit | expression). Units without a prior are ignored.
        form: `kl`, `bce` or `literal`; ValueError otherwise.

    Returns:
        Scalar: the mean over rows and units with a prior; 0 if there are none.
    """
    if form not in ("kl", "bce", "literal"):
        raise ValueError(f"form must be kl, bce or literal; got {form!r}")
    has_prior = prior.any(0)  # (A,)
    logits = action_unit_logits.float()[:, has_prior]  # (N, A')
    if logits.numel() == 0:
        return logits.sum()
    expected = expression_logits.float().softmax(-1) @ prior[:, has_prior].to(logits)  # (N, A'), q
    expected = expected.clamp(EPSILON, 1 - EPSILON)
    if form == "literal":
        return -(logits.sigmoid() * expected.log()).mean()
    if form == "bce":
        return F.binary_cross_entropy_with_logits(logits, expected.detach())
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    if_present = expected * (expected.log() - log_p)
    if_absent = (1 - expected) * ((-expected).log1p() - log_not_p)
    return (if_present + if_absent).mean()


def consistency_loss(
    valence_arousal: Tensor, expressions: Tensor, action_units: Tensor, copies: Tensor
) -> Tensor:
    """Compare the outputs for two augmented copies of each crop (our choice).

    Sums the mean squared differences of valence-arousal (N, 2) and of action units (N, A, in
    units of their deviations), and the mean squared distance of expressions (N, 7).

    `copies` (N,) numbers the crops; the two copies of a crop are neighbours, or ValueError.
    """
    first, second = copies[0::2], copies[1::2]
    if len(copies) % 2 or not torch.equal(first, second):
        raise ValueError(f"copies of a crop must be neighbours in the batch; got {copies.tolist()}")
    moved = [(x[0::2] - x[1::2]).float().square() for x in (valence_arousal, action_units)]
    distance = (expressions[0::2] - expressions[1::2]).float().square().sum(-1)
    return torch.stack([*(squares.mean() for squares in moved), distance.mean()]).sum()


# Co-annotation ---------------------------------------------------------------------------------
# The idea is from sibling papers (Kollias, Sharmanska & Zafeiriou, arXiv
# 2105.03790); the details are our choice. Both functions read labels only, so
# a target never carries a gradient.


def soft_co_annotation(
    expression_labels: Tensor, action_unit_labels: Tensor, prior: Tensor, temperature: float
) -> Tensor:
    """Derive distributions over the expressions for rows with action-unit labels only.

    score(e) = sum_i w_ei y_i / sum_i w_ei over the annotated units i, with w from the
    prior; neutral, which has no units, scores 1 - max_i y_i. The distribution is
    softmax(score / temperature). A row gets no target if an expression other than
    neutral has no annotated unit.

    Args:
        expression_labels: (N,) int64 class ids; -100 if unlabelled.
        action_unit_labels: (N, A) float in [0, 1]; NaN if not annotated.
        prior: (7, A) in [0, 1], P(unit | expression).
        temperature: positive. At 1, no expression gets more than 0.31, since scores
            differ by at most 1.

    Returns:
        (N, 7) float; NaN in rows without a target.
    """
    annotated = ~action_unit_labels.isnan()  # (N, A)
    presence = action_unit_labels.nan_to_num()  # (N, A)
    prior = prior.to(presence)
    support = (annotated.unsqueeze(1) * prior).sum(-1)  # (N, 7)
    numbers = torch.arange(len(EXPRESSIONS), device=support.device)
    neutral = numbers == EXPRESSIONS.index("neutral")  # (7,)
    score = (presence.unsqueeze(1) * prior).sum(-1) / support.clamp(min=EPSILON)  # (N, 7)
    score = torch.where(neutral, 1 - presence.amax(-1, keepdim=True), score)
    wanted = (expression_labels == NO_CLASS) & ((support > 0) | neutral).all(-1)  # (N,)
    return torch.where(wanted.unsqueeze(-1), (score / temperature).softmax(-1), float("nan"))


def hard_co_annotation(
    expression_labels: Tensor, action_unit_labels: Tensor, prior: Tensor, prototypes: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Fill in missing labels from the present ones and the prior.

    A row with an expression and no annotated unit gets the expression's units as present:
    target 1, weighted in the loss by the prior's share of people. Its other units stay
    unannotated. A row with annotated units and no expression gets the expression whose
    prototypical units are all present: the one with most units, or none if two tie.

    `prototypes` (7, A) bool comes from `priors.prototypical_units`; the other arguments are
    as in `soft_co_annotation`.

    Returns:
        Expression labels (N,), action-unit labels (N, A) and their weights (N, A), which
        are 1 for given labels.
    """
    has_expression = expression_labels != NO_CLASS  # (N,)
    called_for = prior.to(action_unit_labels)[expression_labels.clamp(min=0)]  # (N, A)
    lacks_units = has_expression & action_unit_labels.isnan().all(-1)  # (N,)
    made_up = lacks_units.unsqueeze(-1) & (called_for > 0)  # (N, A)

    present = action_unit_labels >= PRESENT_PROBABILITY - EPSILON  # (N, A), False if not annotated
    prototypes = prototypes.to(present.device)
    is_shown = (present.unsqueeze(1) | ~prototypes).all(-1)  # (N, 7)
    shown = is_shown * prototypes.sum(-1)  # (N, 7), units of the expressions that are shown
    most, chosen = shown.max(-1)  # (N,)
    clear = (most > 0) & ((shown == most.unsqueeze(-1)).sum(-1) == 1)  # (N,)
    return (
        torch.where(~has_expression & clear, chosen, expression_labels),
        torch.where(made_up, 1.0, action_unit_labels),
        torch.where(made_up, called_for, 1.0),
    )
