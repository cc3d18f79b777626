"""Label vectors with Hume-Reaction's published marginals. Simulated: no label of the corpus is in here."""

from functools import cache
from math import erf, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mma_mrnnet.model.labels import REACTIONS

Array = NDArray[np.float64]


class Marginal(NamedTuple):
    """How one reaction's labels are distributed over the clips."""

    mean: float
    std: float
    share_zero: float
    share_one: float


MARGINALS: dict[str, Marginal] = {
    "Adoration": Marginal(0.324, 0.363, 0.153, 0.140),
    "Amusement": Marginal(0.612, 0.370, 0.002, 0.350),
    "Anxiety": Marginal(0.348, 0.329, 0.056, 0.101),
    "Disgust": Marginal(0.243, 0.289, 0.030, 0.081),
    "Empathic-Pain": Marginal(0.213, 0.297, 0.182, 0.066),
    "Fear": Marginal(0.288, 0.342, 0.156, 0.086),
    "Surprise": Marginal(0.530, 0.322, 0.000, 0.176),
}
"""Hume-Reaction's training split, 15,806 clips: aggregates only, none of the corpus's data.

Each label vector of the corpus is divided by its own maximum. The shares of exact 1 sum to 1, so each
clip has one label at 1."""

CORRELATION = np.array(
    [  # Ador   Amus   Anxi   Disg   Pain   Fear   Surp
        [1.00, 0.35, -0.25, -0.35, -0.05, -0.25, 0.05],
        [0.35, 1.00, -0.35, -0.25, -0.35, -0.35, 0.20],
        [-0.25, -0.35, 1.00, 0.15, 0.35, 0.60, 0.05],
        [-0.35, -0.25, 0.15, 1.00, 0.25, 0.15, 0.10],
        [-0.05, -0.35, 0.35, 0.25, 1.00, 0.30, 0.00],
        [-0.25, -0.35, 0.60, 0.15, 0.30, 1.00, 0.20],
        [0.05, 0.20, 0.05, 0.10, 0.00, 0.20, 1.00],
    ]
)
"""How the labels' Gaussian scores go together, in the order of `REACTIONS`.

Our choice: no joint table is published."""


def draw_labels(count: int, rng: np.random.Generator) -> Array:
    """(count, 7) labels in [0, 1] with the published marginals by construction; each row has exactly one 1.

    The dominant reaction is drawn from the shares of 1. Each other label is 0 with its published share,
    otherwise Beta with the mean and variance that are left for it (the Beta is our choice); a Gaussian
    copula, shifted by the dominant reaction, ties them together.
    """
    shares = np.array([marginal.share_one for marginal in MARGINALS.values()])
    dominant = rng.choice(len(REACTIONS), size=count, p=shares / shares.sum())  # (count,)
    noise = rng.standard_normal((count, len(REACTIONS))) @ np.linalg.cholesky(CORRELATION).T
    scores = CORRELATION[dominant] + noise  # (count, 7)
    labels = np.empty_like(scores)
    for column in range(len(REACTIONS)):
        # Uniform on [0, 1] over the clips in which this reaction is not the dominant one.
        uniform = np.interp(scores[:, column], *_score_distribution(column))
        share_zero, values, quantiles = _label_distribution(column)
        above_zero = np.interp((uniform - share_zero) / (1 - share_zero), quantiles, values)
        labels[:, column] = np.where(uniform < share_zero, 0.0, above_zero)
    labels[np.arange(count), dominant] = 1.0
    return labels


@cache
def _score_distribution(column: int) -> tuple[Array, Array]:
    """Scores and their cumulative distribution where the reaction is not dominant.

    A mixture of unit normals, one for each reaction that may be the dominant one instead.
    """
    scores = np.linspace(-6, 6, 1201)
    marginals = list(MARGINALS.values())
    cumulative = np.zeros_like(scores)
    for other in range(len(REACTIONS)):
        if other != column:
            weight = marginals[other].share_one / (1 - marginals[column].share_one)
            distance = (scores - CORRELATION[other, column]) / sqrt(2)
            cumulative += weight * np.array([0.5 + erf(value) / 2 for value in distance])
    return scores, cumulative


@cache
def _label_distribution(column: int) -> tuple[float, Array, Array]:
    """Where the reaction is not dominant: its share of 0, and the values and quantiles of its Beta."""
    mean, std, share_zero, share_one = list(MARGINALS.values())[column]
    share_between = 1 - share_zero - share_one
    # E[x] and E[x^2] are published: take off what the ones give, and divide by how many lie between 0 and 1.
    beta_mean = (mean - share_one) / share_between
    beta_variance = (std**2 + mean**2 - share_one) / share_between - beta_mean**2
    concentration = beta_mean * (1 - beta_mean) / beta_variance - 1  # a + b
    a, b = beta_mean * concentration, (1 - beta_mean) * concentration
    values = 1 / (1 + np.exp(-np.linspace(-30, 30, 6001)))
    density = (
        values**a * (1 - values) ** b
    )  # over the logits of the values: smooth where a or b is below 1
    quantiles = np.cumsum(density) / density.sum()
    values = values.clip(1e-4, 1 - 1e-4)  # float32 must not round them to 0 or 1
    return share_zero / (1 - share_one), values, quantiles
