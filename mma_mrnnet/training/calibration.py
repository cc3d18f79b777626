"""The affine calibration of stage 2's outputs."""

import torch
from torch import Tensor

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
