"""Differences of known size, put there on purpose: what the tables must find if they can see anything."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

NOISE_FACTOR = 0.9
"""What noise on the outputs leaves of each correlation: independent noise of variance v (1 / f^2 - 1) turns a
correlation r into f r, where v is the output's own variance."""


class LeakingCollator:
    """Writes each clip's labels into its padding; a model that keeps padding out cannot see them.

    Args:
        collator: makes batches of `affect` (B, T, A), `frame_mask` (B, T) and `labels` (B, K).
    """

    def __init__(self, collator: Callable[[list], dict[str, Tensor]]) -> None:
        self.collator = collator

    def __call__(self, items: list) -> dict[str, Tensor]:
        """The batch with labels in the first K numbers of every padded frame."""
        batch = self.collator(items)
        affect, labels = batch["affect"].clone(), batch["labels"].nan_to_num()
        told = labels[:, None, : affect.shape[2]].expand(
            -1, affect.shape[1], -1
        )  # (B, T, K), fewer where A is
        real = batch["frame_mask"].unsqueeze(-1)  # (B, T, 1)
        affect[..., : told.shape[2]] = torch.where(real, affect[..., : told.shape[2]], told)
        return {**batch, "affect": affect}


def with_noise(intensities: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """(N, K) outputs with independent noise, so that each correlation falls to `NOISE_FACTOR` of what it was."""
    noise = np.random.default_rng(seed).standard_normal(intensities.shape)
    return intensities + intensities.std(0) * np.sqrt(NOISE_FACTOR**-2 - 1) * noise
