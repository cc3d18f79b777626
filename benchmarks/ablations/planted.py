"""Differences of known size, put into a study on purpose: the tables must find them."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mma_mrnnet.analysis.markdown import format_signed
from mma_mrnnet.analysis.study_page import make_table
from mma_mrnnet.analysis.study_summary import (
    Run,
    StudySummary,
    VariantRow,
    compare,
    measure_spread,
    score_targets,
)
from mma_mrnnet.analysis.variants import FULL
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.stages import Stage, mrnn_stage

QUESTION = "planted"
NOISE = "noise"

NOISE_FACTOR = 0.9
"""What noise on the outputs leaves of each correlation: independent noise of variance v (1 / f^2 - 1)
turns a correlation r into f r, where v is the output's own variance."""


class LeakingCollator:
    """Writes each clip's labels into its padding; a model that masks padding cannot see them.

    Args:
        collator: makes batches of `affect` (B, T, A), `frame_mask` (B, T) and `labels` (B, K).
    """

    def __init__(self, collator: Callable[[list], dict[str, Tensor]]) -> None:
        self.collator = collator

    def __call__(self, items: list) -> dict[str, Tensor]:
        """Return the batch with labels in the first K numbers of every padded frame."""
        batch = self.collator(items)
        affect, labels = batch["affect"].clone(), batch["labels"].nan_to_num()
        leaked = labels[:, None, : affect.shape[2]].expand(-1, affect.shape[1], -1)  # (B, T, K)
        real = batch["frame_mask"].unsqueeze(-1)  # (B, T, 1)
        width = leaked.shape[2]
        affect[..., :width] = torch.where(real, affect[..., :width], leaked)
        return {**batch, "affect": affect}


def make_leaking_stage(args: TrainArguments) -> Stage:
    """Make stage 2 with labels in the padding, in training and on held-out clips alike."""
    stage = mrnn_stage(args)
    stage.train_collator = stage.collator = LeakingCollator(stage.collator)
    return stage


def add_noise(intensities: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Add independent noise to (N, K) outputs: each correlation falls to `NOISE_FACTOR` of itself."""
    noise = np.random.default_rng(seed).standard_normal(intensities.shape)
    return intensities + intensities.std(0) * np.sqrt(NOISE_FACTOR**-2 - 1) * noise


def add_noise_row(summary: StudySummary, full: Sequence[Run]) -> StudySummary:
    """Add the full model with noise on its outputs to a study's summary.

    Args:
        summary: of the study.
        full: the runs of the full model.
    """
    noisy = [
        float(score_targets(add_noise(run.intensities, run.record.seed), run.labels).nanmean())
        for run in full
    ]
    clean = [run.score() for run in full]
    row = VariantRow(
        name=NOISE,
        question=QUESTION,
        what="the full model's outputs with noise",
        against=FULL,
        seeds=[run.record.seed for run in full],
        mean_pearson=noisy,
        mean=float(np.mean(noisy)),
        sd=measure_spread(noisy),
        difference=compare([one - other for one, other in zip(noisy, clean, strict=True)]),
        expected_difference=(NOISE_FACTOR - 1) * float(np.mean(clean)),
    )
    others = [one for one in summary.variants if one.name != NOISE]
    return replace(summary, variants=[*others, row])


KNOWN = {"leak-mask": "exactly 0", "leak-padded": "up, most where there is most padding"}


def make_planted_table(summary: StudySummary) -> str:
    """Return the table of planted differences with a column of what each must be."""
    known = {f"`{name}`": text for name, text in KNOWN.items()}
    for row in summary.rows_of(QUESTION):
        if row.expected_difference is not None:
            known[f"`{row.name}`"] = format_signed(row.expected_difference)
    title, _, table = make_table(summary, QUESTION).partition("\n\n")
    head, line, *rows = table.splitlines()
    lines = [f"{head} known to be |", f"{line} --- |"]
    lines += [f"{row} {known.get(row.split(' | ')[0].strip('| '), '')} |" for row in rows]
    return "\n".join([title, "", *lines])
