"""Calibration: one line for each output of stage 2, and lines that stage 1's heads can hold."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress

import torch
import torch.nn.functional as F
from torch import Tensor

from mma_mrnnet.metrics import expression_calibration_error, presence_calibration_error
from mma_mrnnet.model.labels import NO_CLASS, is_present
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.results import CalibrationErrors, ExtractorCalibration
from mma_mrnnet.training.datasets import FrameDataset

Tensors = dict[str, Tensor]

# Stage 2 ---------------------------------------------------------------------------------------

LEAST_SLOPE = 1e-3
"""Minimum slope: an output that falls as its label rises is flattened, never inverted."""
STEEP_SLOPE = 5.0
"""A line this steep stretches noise: the output varies a fifth as much as its label, or less."""


def affine_calibration(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Fit the least-squares line of each output, with a positive slope so that no order changes.

    Args:
        prediction: (N, K) outputs before calibration.
        target: (N, K) labels; NaN where unlabelled.

    Returns:
        Scale and shift, (K,) float32 each. An output that does not rise with its target gets a
        slope of 0.001 around the target's mean; one without labels keeps 1 and 0.
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


# Stage 1 ---------------------------------------------------------------------------------------

FULL_WEIGHT = 50
"""Images from which on a source has full weight; with fewer, in proportion (our choice)."""


@dataclass(frozen=True)
class HeadCalibration:
    """A line for each of stage 1's logits that its heads can hold: the architecture stays.

    Attributes:
        temperature: divides the expression logits; above 1 if the model was too sure.
        scale: (A,) float64, positive, of the action units' logits; 1 for a unit without labels.
        shift: (A,) float64, added afterwards; 0 for a unit without labels.
    """

    temperature: float
    scale: Tensor
    shift: Tensor

    def apply(self, outputs: Tensors) -> Tensors:
        """Return the outputs of a split as the model gives them once this is folded into it."""
        units = outputs["action_unit_logits"]
        return {
            **outputs,
            "expression_logits": outputs["expression_logits"] / self.temperature,
            "action_unit_logits": units * self.scale.to(units) + self.shift.to(units),
        }

    @torch.no_grad()
    def fold_into(self, model: MMAModel) -> None:
        """Change the weights of two heads, so that the model gives what `apply` gives."""
        model.expression_head.weight.div_(self.temperature)
        model.expression_head.bias.div_(self.temperature)
        units = model.action_unit_head
        units.weight.mul_(self.scale.to(units.weight).unsqueeze(1))
        units.bias.mul_(self.scale.to(units.bias)).add_(self.shift.to(units.bias))


def calibrate_extractor(
    model: MMAModel, outputs: Tensors, labels: Tensors, rows: FrameDataset
) -> tuple[Tensors, ExtractorCalibration]:
    """Fit a calibration on a split and fold it into the model.

    Args:
        model: is changed in place.
        outputs: of the split, by the model as it came.
        labels: of the split; the expressions are read.
        rows: the split; its sources, people and intensities are read.

    Returns:
        The outputs after calibration, and the record for the results. Its `crossfitted` errors are
        of each half of the people, calibrated by the other half, so that no error is measured on
        its own fit; None if all images are of one person.
    """
    # The output of a unit promises the probability of presence. Against the ramp that training aims
    # at, the error of presence grew on every source of the labelled crops, and F1 fell.
    presence = is_present(rows.intensity).to(rows.intensity)
    presence[rows.intensity.isnan()] = torch.nan
    # What no training label reached follows the prior alone; calibration must not teach it.
    taught = model.config.supervised_action_units
    if taught is not None:
        untaught = [unit not in taught for unit in model.config.action_units]
        presence[:, untaught] = torch.nan
    labels = {"expression_labels": labels["expression_labels"], "action_unit_labels": presence}
    fitted = fit_extractor(outputs, labels, rows.sources)
    fitted.fold_into(model)
    first_half = _split_people(rows.subjects)
    crossed = {name: value.clone() for name, value in outputs.items()}
    for half in (first_half, ~first_half):
        sources = list(compress(rows.sources, (~half).tolist()))
        other = fit_extractor(_select(outputs, ~half), _select(labels, ~half), sources)
        for name, value in other.apply(_select(outputs, half)).items():
            crossed[name][half] = value.to(crossed[name])
    return fitted.apply(outputs), ExtractorCalibration(
        fitted_on="validation",
        temperature=fitted.temperature,
        action_unit_scale=fitted.scale.tolist(),
        action_unit_shift=fitted.shift.tolist(),
        before=measure_calibration(outputs, rows),
        crossfitted=measure_calibration(crossed, rows) if len(set(rows.subjects)) > 1 else None,
    )


def fit_extractor(outputs: Tensors, labels: Tensors, sources: Sequence[str]) -> HeadCalibration:
    """Fit the temperature of the expressions and the line of each unit by cross-entropy.

    Sources: Guo et al., ICML 2017, for the temperature; Platt 1999 for the lines. The rest is our
    choice. For a unit every source weighs the same, however many images it has, since scores are
    reported by source; one of fewer than `FULL_WEIGHT` images weighs in proportion. For the
    expressions every image weighs the same: some sources show neutral faces only, which say nothing
    of how sure to be of anger. A normal prior of deviation 1 on the logarithm of each scale and on
    each shift, worth one image, bounds what few labels say.

    Args:
        outputs: `expression_logits` (N, 7) and `action_unit_logits` (N, A).
        labels: `expression_labels` (N,), -100 where unlabelled; `action_unit_labels` (N, A) in
            [0, 1], NaN where unlabelled.
        sources: of the N images.
    """
    expression, units = labels["expression_labels"], labels["action_unit_labels"]
    labelled = expression != NO_CLASS
    chosen = outputs["expression_logits"][labelled].double().clone()

    def expression_cost(parameters: Tensor) -> Tensor:
        cost = F.cross_entropy(chosen * parameters[0].exp(), expression[labelled])
        return cost + _prior(parameters) / len(chosen)

    sharpness = _minimize(expression_cost, 1) if len(chosen) else torch.zeros(1).double()
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

    lines = _minimize(unit_cost, 2 * units.shape[1])
    lines = torch.where(annotated.any(0).repeat(2), lines, torch.zeros_like(lines))
    log_scale, shift = lines.chunk(2)
    return HeadCalibration(float((-sharpness).exp()), log_scale.exp(), shift)


def measure_calibration(outputs: Tensors, rows: FrameDataset) -> dict[str, CalibrationErrors]:
    """Return the calibration errors of each source: of expressions, and of presence over units."""
    errors = {}
    for source in sorted(set(rows.sources)):
        chosen = torch.tensor([name == source for name in rows.sources])
        expressions = outputs["expression_logits"][chosen].softmax(-1)
        units = outputs["action_unit_logits"][chosen].sigmoid()
        errors[source] = CalibrationErrors(
            expression_ece=expression_calibration_error(expressions, rows.expression[chosen]),
            action_unit_ece=presence_calibration_error(units, rows.intensity[chosen]),
        )
    return errors


def _minimize(cost: Callable[[Tensor], Tensor], count: int) -> Tensor:
    """Return the (count,) float64 parameters where a smooth cost is least, starting from 0."""
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
    """Return -log of the normal prior, up to a constant, summed over the first dimension."""
    return (parameters**2).sum(0) / 2


def _source_weights(sources: Sequence[str], labelled: Tensor) -> Tensor:
    """Return (N, K) float64 weights of the labelled rows, which sum to 1 in each column."""
    weights = torch.zeros(labelled.shape, dtype=torch.float64)
    for source in set(sources):
        own = torch.tensor([name == source for name in sources]).unsqueeze(1) & labelled  # (N, K)
        weights += own / own.sum(0).clamp(min=FULL_WEIGHT)
    return weights / weights.sum(0).clamp(min=1e-12)


def _split_people(subjects: Sequence[str]) -> Tensor:
    """Return (N,) bool: the images of every second person, in an order drawn from a fixed seed."""
    people = sorted(set(subjects))
    order = torch.randperm(len(people), generator=torch.Generator().manual_seed(0)).tolist()
    first = {people[number] for number in order[::2]}
    return torch.tensor([subject in first for subject in subjects], dtype=torch.bool)


def _select(values: Tensors, chosen: Tensor) -> Tensors:
    return {name: value[chosen] for name, value in values.items()}
