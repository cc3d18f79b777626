"""Calibration: an affine map for each output of stage 2 and for the logits of stage 1."""

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
"""Minimum slope: an output negatively correlated with its label is flattened, never inverted."""
STEEP_SLOPE = 5.0
"""Above this slope noise is amplified: the output varies at most a fifth as much as its label."""


def affine_calibration(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Fit one increasing least-squares line per output; return scale and shift, (K,) float32.

    `prediction` and `target` are (N, K); NaN means unlabelled. If an output does not rise with
    its target, the slope is 0.001 around the target's mean. Without labels, the line is the
    identity.
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

LEAST_PRESENT = 20
"""A unit that fewer images show keeps its logits: a line fitted to them would be noise."""
FULL_WEIGHT = 50
"""A source with at least this many images has full weight, others in proportion (our choice)."""


@dataclass(frozen=True)
class HeadCalibration:
    """A temperature and lines for stage 1's logits, which can be folded into its heads.

    Attributes:
        temperature: divides the expression logits; above 1 if the model was overconfident.
        scale: (A,) float64, positive, for unit logits; 1 for a unit without labels.
        shift: (A,) float64, added after scaling; 0 for a unit without labels.
    """

    temperature: float
    scale: Tensor
    shift: Tensor

    def apply(self, outputs: Tensors) -> Tensors:
        """Return the calibrated outputs of a split."""
        units = outputs["action_unit_logits"]
        return {
            **outputs,
            "expression_logits": outputs["expression_logits"] / self.temperature,
            "action_unit_logits": units * self.scale.to(units) + self.shift.to(units),
        }

    @torch.no_grad()
    def fold_into(self, model: MMAModel) -> None:
        """Change the weights of two heads, so that the model returns what `apply` returns."""
        model.expression_head.weight.div_(self.temperature)
        model.expression_head.bias.div_(self.temperature)
        units = model.action_unit_head
        units.weight.mul_(self.scale.to(units.weight).unsqueeze(1))
        units.bias.mul_(self.scale.to(units.bias)).add_(self.shift.to(units.bias))


def calibrate_extractor(
    model: MMAModel, outputs: Tensors, labels: Tensors, rows: FrameDataset
) -> tuple[Tensors, ExtractorCalibration]:
    """Fit a calibration on a split and fold it into `model`, in place.

    `outputs` are uncalibrated; of `labels` only the expressions are read. Returns the
    calibrated outputs and the record for the results. Its `crossfitted` errors are those of
    each half of the people, calibrated on the other half; None if there is only one person.
    """
    # A unit's output is the probability of presence. Calibrating against the ramp, the target of
    # training, raised the error of presence on every source of the labelled crops and lowered F1.
    presence = is_present(rows.intensity).to(rows.intensity)
    presence[rows.intensity.isnan()] = torch.nan
    # Outputs without training labels follow the prior; calibration must not teach them.
    taught = model.config.supervised_action_units
    if taught is not None:
        untaught = [unit not in taught for unit in model.config.action_units]
        presence[:, untaught] = torch.nan
    presence[:, is_present(rows.intensity).sum(0) < LEAST_PRESENT] = torch.nan
    if model.config.action_unit_loss == "squared_error":  # on the scale of the labels already
        presence[:] = torch.nan
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
    """Fit the expression temperature and one line per action unit by cross-entropy.

    For a unit, all sources weigh the same, because scores are reported by source; a source
    with fewer than `FULL_WEIGHT` images weighs in proportion. For expressions all images weigh
    the same: sources with neutral faces only cannot tell how confident to be of anger. A
    normal prior with deviation 1, worth one image, on each log scale and each shift limits the
    effect of few labels. Sources: Guo et al., ICML 2017 (temperature); Platt 1999 (lines); the
    rest is our choice.

    Outputs and labels are named as in `MMAModel`; labels are NaN or -100 where unlabelled.
    `sources` holds one name per image.
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
    """Return the calibration errors of expressions and of unit presence, by source."""
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
    """Return the (count,) float64 parameters that minimize a smooth cost, starting from 0."""
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
    """Return the negative log of the normal prior, up to a constant, summed over dimension 0."""
    return (parameters**2).sum(0) / 2


def _source_weights(sources: Sequence[str], labelled: Tensor) -> Tensor:
    """Return (N, K) float64 weights of the labelled rows; each column sums to 1."""
    weights = torch.zeros(labelled.shape, dtype=torch.float64)
    for source in set(sources):
        own = torch.tensor([name == source for name in sources]).unsqueeze(1) & labelled  # (N, K)
        weights += own / own.sum(0).clamp(min=FULL_WEIGHT)
    return weights / weights.sum(0).clamp(min=1e-12)


def _split_people(subjects: Sequence[str]) -> Tensor:
    """Return (N,) bool: the images of half of the people, chosen with a fixed seed."""
    people = sorted(set(subjects))
    order = torch.randperm(len(people), generator=torch.Generator().manual_seed(0)).tolist()
    first = {people[number] for number in order[::2]}
    return torch.tensor([subject in first for subject in subjects], dtype=torch.bool)


def _select(values: Tensors, chosen: Tensor) -> Tensors:
    return {name: value[chosen] for name, value in values.items()}
