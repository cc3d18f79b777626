"""Baselines of stage 2: a constant, ridge and boosted trees on one summary of each clip.

A network over frames is worth its cost only if it beats them. All are trained on reactions
alone, since the score is that of reactions. Ridge and trees read mean, maximum, minimum, standard
deviation, and the means of the first and last third of each input, as logits if the GRU reads
logits, and the number of frames.
"""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mma_mrnnet.metrics import mean_absolute_errors, mean_where_labels_vary, pearson_scores
from mma_mrnnet.model.clip_length import thinned_indices
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.results import Baselines, BaselineScores, MRNNResults
from mma_mrnnet.training.clip_corpora import ClipSplit
from mma_mrnnet.training.datasets import ClipDataset
from mma_mrnnet.training.reports import rows_of_kind

logger = logging.getLogger(__name__)

RIDGE_CLIPS, TREE_CLIPS = 20_000, 4000  # evenly spaced training reactions, at most
VALUES = 8_000_000  # of summaries in memory: wide tables get fewer clips
LEAST_LABELS = 10
TREE_TARGETS = 20  # beyond these, trees take minutes and are left out
PENALTIES = (1.0, 10.0, 100.0, 1000.0, 10_000.0)

Array = NDArray[np.float64]


class Summaries(NamedTuple):
    """Clips as rows: `values` (N, F) and `labels` (N, K) with NaN."""

    values: Array
    labels: Array


Predict = Callable[[Array], Array]
"""Maps summaries (N, F) to estimates (N, K)."""


def score_baselines(model: MMAMRNNetForIntensity, splits: dict[str, ClipSplit]) -> Baselines | None:
    """Train the baselines and score them on validation and test; None without reactions."""
    data = {}
    for name, split in splits.items():
        reactions = rows_of_kind(split.rows, "reaction").nonzero().flatten()
        most = min(RIDGE_CLIPS, max(1, VALUES // (6 * model.config.gru_input_size)))
        chosen = reactions[thinned_indices(len(reactions), most)].tolist()
        if chosen:
            data[name] = summarize_clips(model, split.rows, chosen)
    if "train" not in data or len(data) < 2:
        return None
    train = data.pop("train")
    few = thinned_indices(len(train.labels), TREE_CLIPS)
    fits: dict[str, tuple[Callable[[], Any] | None, Summaries]] = {
        "constant": (None, train),
        "ridge": (make_ridge, train),
    }
    if train.labels.shape[1] <= TREE_TARGETS:
        fits["trees"] = (make_trees, Summaries(train.values[few], train.labels[few]))
    with threadpool_limits(torch.get_num_threads()):
        predictors = {name: fit_targets(*fit) for name, fit in fits.items()}
        scores = {
            split: {name: _score(predict, clips) for name, predict in predictors.items()}
            for split, clips in data.items()
        }
    trained_on = {name: len(clips.labels) for name, (_, clips) in fits.items()}
    return Baselines(trained_on, scores["validation"], scores.get("test", {}))


def warn_if_beaten(results: MRNNResults) -> None:
    """Log a warning if a baseline scores higher than the network."""
    lost = results.lost_to_baseline()
    if lost is not None:
        logger.warning(
            "%s on summaries of the clips beats this network on %s: mean Pearson %.3f against %.3f",
            *(lost.baseline, lost.split, lost.score, lost.ours),
        )


def summarize_clips(
    model: MMAMRNNetForIntensity, clips: ClipDataset, chosen: list[int]
) -> Summaries:
    """Summarize clips by what the GRU reads of them, before scaling."""
    columns = model.config.channel_columns
    rows = []
    for number in chosen:
        frames = torch.from_numpy(clips[number]["affect"])
        read = model.transform_inputs(frames).numpy()[:, columns]  # (L, C)
        third = max(len(read) // 3, 1)
        spread = (read.mean(0), read.max(0), read.min(0), read.std(0))
        ends = (read[:third].mean(0), read[-third:].mean(0))
        rows.append(np.concatenate([*spread, *ends, [len(read)]]))
    return Summaries(np.stack(rows).astype(np.float64), clips.labels[chosen].double().numpy())


def make_ridge() -> Any:
    """Return a ridge regression on standardized summaries; cross-validation sets the penalty."""
    return make_pipeline(StandardScaler(), RidgeCV(PENALTIES))


def make_trees() -> Any:
    """Return gradient-boosted trees, 200 of 8 leaves for each target."""
    trees = HistGradientBoostingRegressor(
        learning_rate=0.05, max_iter=200, max_leaf_nodes=8, early_stopping=False, random_state=0
    )
    return MultiOutputRegressor(trees)


def fit_targets(make: Callable[[], Any] | None, train: Summaries) -> Predict:
    """Fit a regression for each group of targets that are labelled in the same clips.

    Without `make`, or with fewer than 10 labels, a target's estimate is its mean label.
    """
    labelled = ~np.isnan(train.labels)
    means = np.nansum(train.labels, 0) / labelled.sum(0).clip(1)
    groups, group_of = np.unique(labelled, axis=1, return_inverse=True)
    fitted = []
    for number, rows in enumerate(groups.T):
        columns = np.flatnonzero(group_of.ravel() == number)
        if make is not None and rows.sum() >= LEAST_LABELS:
            labels = train.labels[np.ix_(rows, columns)]
            fitted.append((columns, make().fit(train.values[rows], labels)))

    def predict(values: Array) -> Array:
        estimates = np.tile(means, (len(values), 1))
        for columns, regression in fitted:
            estimates[:, columns] = regression.predict(values).reshape(len(values), -1)
        return estimates

    return predict


def _score(predict: Predict, clips: Summaries) -> BaselineScores:
    estimates = torch.from_numpy(predict(clips.values))
    labels = torch.from_numpy(clips.labels)
    pearson = pearson_scores(estimates, labels)
    mae = mean_absolute_errors(estimates, labels).nanmean().item()
    return BaselineScores(mean_where_labels_vary(pearson, labels), mae)
