"""Calibration: of stage 2's outputs by a line each, of stage 1's logits by lines that its heads can hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

import torch
import torch.nn.functional as F
from torch import Tensor

from mma_mrnnet.metrics import expression_calibration_error, presence_calibration_error
from mma_mrnnet.model.labels import NO_CLASS, is_present
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.training.datasets import FrameDataset

# Stage 2 -----------------------------------------------------------------------------------------------------------

LEAST_SLOPE = 1e-3
"""Of a calibration: an output that falls as its label rises is made nearly constant, never turned round."""


def affine_calibration(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The least-squares line of each output, its slope kept positive so that no order is turned round.

    Args:
        prediction: (N, K) outputs before calibration.
        target: (N, K) labels; NaN where unlabelled.

    Returns:
        scale and shift, (K,) float32 each. An output that does not rise with its target gets a slope of 0.001
        around the target's mean; one without labels stays as it is.
    """
    scales, shifts = [], []
    for column in range(target.shape[1]):
        labelled = ~target[:, column].isnan()
        x, y = prediction[labelled, column].double(), target[labelled, column].double()
        if len(x) == 0:
            scales.append(1.0)
            shifts.append(0.0)
            continue
        variance = float(x.var(correction=0))
        slope = float(((x - x.mean()) * (y - y.mean())).mean()) / variance if variance > 0 else 0.0
        scales.append(max(slope, LEAST_SLOPE))
        shifts.append(float(y.mean()) - scales[-1] * float(x.mean()))
    return torch.tensor(scales), torch.tensor(shifts)


# Stage 1 -----------------------------------------------------------------------------------------------------------

FULL_WEIGHT = 50
"""Images from which on a source weighs as much as any other; with fewer it weighs in proportion (our choice)."""


@dataclass(frozen=True)
class ExtractorCalibration:
    """A straight line of each of stage 1's logits, which its heads can hold: the architecture stays as it is.

    Attributes:
        temperature: divides the expression logits; above 1 where the model was too sure.
        scale: (A,) float64, positive, of the action units' logits; 1 for a unit that nothing says anything of.
        shift: (A,) float64, added to them afterwards; 0 for such a unit.
    """

    temperature: float
    scale: Tensor
    shift: Tensor

    def applied(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs of a split as the model gives them once this is folded into it."""
        units = outputs["action_unit_logits"]
        return {
            **outputs,
            "expression_logits": outputs["expression_logits"] / self.temperature,
            "action_unit_logits": units * self.scale.to(units) + self.shift.to(units),
        }

    @torch.no_grad()
    def fold_into(self, model: MMAModel) -> None:
        """Changes the weights and biases of two heads so that the model says what `applied` says."""
        model.expression_head.weight.div_(self.temperature)
        model.expression_head.bias.div_(self.temperature)
        units = model.action_unit_head
        units.weight.mul_(self.scale.to(units.weight).unsqueeze(1))
        units.bias.mul_(self.scale.to(units.bias)).add_(self.shift.to(units.bias))


def calibrate_extractor(
    model: MMAModel, outputs: dict[str, Tensor], labels: dict[str, Tensor], rows: FrameDataset
) -> tuple[dict[str, Tensor], dict]:
    """Fits a calibration on a split and folds it into the model.

    Args:
        model: changed in place.
        outputs: of the split, by the model as it came.
        labels: of the split, as `FrameCollator` gives them; the expressions are read.
        rows: the split; its sources, people and intensities are read.

    Returns:
        The outputs after calibration, and the record for the results: what was fitted, and the errors of each source
        before it and `crossfitted`: each half of the people calibrated by what the other half says, so that no error
        is measured on its own fit; None where all images are one person's.
    """
    # An action unit's output promises the probability of presence. Against the ramp that training aims at, the error
    # of presence grew on every source of the labelled crops, and F1 fell.
    presence = torch.where(
        rows.intensity.isnan(), rows.intensity, is_present(rows.intensity).to(rows.intensity)
    )
    # Nor must calibration be the first to teach a unit: what no training label reached follows the prior alone.
    taught = model.config.supervised_action_units
    presence[
        :, [taught is not None and unit not in taught for unit in model.config.action_units]
    ] = torch.nan
    labels = {"expression_labels": labels["expression_labels"], "action_unit_labels": presence}
    fitted = fit_extractor(outputs, labels, rows.sources)
    fitted.fold_into(model)
    halves = _halves_of_people(rows.subjects)
    crossed = {name: value.clone() for name, value in outputs.items()}
    for half in (halves, ~halves):
        other = fit_extractor(
            *(_rows_of(values, ~half) for values in (outputs, labels)), _chosen(rows.sources, ~half)
        )
        for name, value in other.applied(_rows_of(outputs, half)).items():
            crossed[name][half] = value.to(crossed[name])
    return fitted.applied(outputs), {
        "fitted_on": "validation",
        "temperature": fitted.temperature,
        "action_unit_scale": fitted.scale,
        "action_unit_shift": fitted.shift,
        "before": calibration_errors(outputs, rows),
        "crossfitted": calibration_errors(crossed, rows) if len(set(rows.subjects)) > 1 else None,
    }


def fit_extractor(
    outputs: dict[str, Tensor], labels: dict[str, Tensor], sources: Sequence[str]
) -> ExtractorCalibration:
    """The temperature of the expressions and the line of each action unit that make a split's labels most likely.

    Cross-entropy with the labels; Guo et al., ICML 2017, for the temperature, Platt 1999 for the lines. For a unit
    every source weighs the same, however many images it has: the scores are told source by source, and the largest
    one would decide for all. One of fewer than `FULL_WEIGHT` images weighs in proportion: five photos must not count
    as much as a thousand. For the expressions every image weighs the same: some sources show neutral faces alone,
    which say nothing of how sure to be of anger. A normal prior of deviation 1 on each logarithm of a scale and on
    each shift, worth one image, keeps what few labels say within bounds. All our choice.

    Args:
        outputs: `expression_logits` (N, 7) and `action_unit_logits` (N, A).
        labels: `expression_labels` (N,), -100 where unlabelled; `action_unit_labels` (N, A) in [0, 1], NaN where
            unlabelled.
        sources: of the N images.
    """
    expression, units = labels["expression_labels"], labels["action_unit_labels"]
    labelled = expression != NO_CLASS
    chosen = outputs["expression_logits"][labelled].double().clone()

    def expression_cost(parameters: Tensor) -> Tensor:
        return F.cross_entropy(chosen * parameters[0].exp(), expression[labelled]) + _prior(
            parameters
        ) / len(chosen)

    sharpness = _minimum(expression_cost, 1) if len(chosen) else torch.zeros(1, dtype=torch.float64)
    annotated = ~units.isnan()
    logits, target = outputs["action_unit_logits"].double().clone(), units.double().nan_to_num(0.0)
    weights = _source_weights(sources, annotated)
    count = annotated.sum(0).clamp(min=1)

    def unit_cost(parameters: Tensor) -> Tensor:
        log_scale, shift = parameters.chunk(2)
        cost = F.binary_cross_entropy_with_logits(
            logits * log_scale.exp() + shift, target, reduction="none"
        )
        return (cost * weights).sum() + (_prior(torch.stack([log_scale, shift])) / count).sum()

    lines = _minimum(unit_cost, 2 * units.shape[1])
    log_scale, shift = torch.where(
        annotated.any(0).repeat(2), lines, torch.zeros_like(lines)
    ).chunk(2)
    return ExtractorCalibration(float((-sharpness).exp()), log_scale.exp(), shift)


def calibration_errors(
    outputs: dict[str, Tensor], rows: FrameDataset
) -> dict[str, dict[str, float]]:
    """Of each source the calibration errors of the expressions and, mean over its labelled units, of presence."""
    errors = {}
    for source in sorted(set(rows.sources)):
        chosen = torch.tensor([name == source for name in rows.sources])
        own = _rows_of(outputs, chosen)
        errors[source] = {
            "expression_ece": expression_calibration_error(
                own["expression_logits"].softmax(-1), rows.expression[chosen]
            ),
            "action_unit_ece": presence_calibration_error(
                own["action_unit_logits"].sigmoid(), rows.intensity[chosen]
            ),
        }
    return errors


def _minimum(cost: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """(count,) float64 where a smooth cost is least, looked for from 0 on."""
    parameters = torch.zeros(count, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS(
        [parameters], max_iter=300, tolerance_grad=1e-8, line_search_fn="strong_wolfe"
    )

    def step() -> Tensor:
        search.zero_grad()
        value = cost(parameters)
        value.backward()
        return value

    with torch.enable_grad():
        search.step(step)
    return parameters.detach()


def _prior(parameters: Tensor) -> Tensor:
    """-log of the normal prior, up to a constant: summed over the first dimension."""
    return (parameters**2).sum(0) / 2


def _source_weights(sources: Sequence[str], labelled: Tensor) -> Tensor:
    """(N, K) float64: weights of the labelled rows of each column, which sum to 1 there; 0 for the others."""
    weights = torch.zeros(labelled.shape, dtype=torch.float64)
    for source in set(sources):
        own = torch.tensor([name == source for name in sources]).unsqueeze(1) & labelled  # (N, K)
        weights += own / own.sum(0).clamp(min=FULL_WEIGHT)
    return weights / weights.sum(0).clamp(min=1e-12)


def _halves_of_people(subjects: Sequence[str]) -> Tensor:
    """(N,) bool, True for the images of every second person in an order that chance chose once."""
    people = sorted(set(subjects))
    order = torch.randperm(len(people), generator=torch.Generator().manual_seed(0)).tolist()
    first = {people[number] for number in order[::2]}
    return torch.tensor([subject in first for subject in subjects], dtype=torch.bool)


def _rows_of(values: dict[str, Tensor], chosen: Tensor) -> dict[str, Tensor]:
    return {name: value[chosen] for name, value in values.items()}


def _chosen(names: Sequence[str], chosen: Tensor) -> list[str]:
    return list(compress(names, chosen.tolist()))
