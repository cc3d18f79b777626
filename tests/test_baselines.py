"""Models of clip summaries beside the network: what they read, what they find, and who loses to them."""

import logging

import numpy as np
import pytest

from mma_mrnnet import MMAMRNNetConfig, MMAMRNNetForIntensity
from mma_mrnnet.analysis.findings import compare_with_baselines
from mma_mrnnet.hub.checkpoints import pretrained_folder
from mma_mrnnet.results import Baselines, BaselineScores, read_results
from mma_mrnnet.training.baselines import (
    Summaries,
    fit_targets,
    make_ridge,
    make_trees,
    score_baselines,
    summarize_clips,
    warn_if_beaten,
)
from mma_mrnnet.training.clip_corpora import ClipSplit
from mma_mrnnet.training.datasets import ClipDataset

NAN = float("nan")


@pytest.fixture
def model():
    return MMAMRNNetForIntensity(MMAMRNNetConfig(feature_names=["a", "b"], num_frames=8))


def clips(count, seed, kinds=None):
    """Clips of two features of noise; the label is the maximum of the first."""
    rng = np.random.default_rng(seed)
    frames = [rng.normal(size=(rng.integers(2, 9), 2)).astype(np.float32) for _ in range(count)]
    labels = np.array([[clip[:, 0].max()] for clip in frames], np.float32)
    names = [str(number) for number in range(count)]
    return ClipDataset(names, [""] * count, kinds or ["reaction"] * count, labels, frames)


def test_a_summary_by_hand(model):
    frames = [np.array([[1, 0], [2, 0], [6, 0]], np.float32)]
    rows = ClipDataset(["a"], [""], ["reaction"], np.zeros((1, 1), np.float32), frames)
    found = summarize_clips(model, rows, [0]).values[0]
    # Mean, maximum, minimum, deviation, first and last third, of both features; three frames.
    assert found[::2].tolist() == pytest.approx([3, 6, 1, (14 / 3) ** 0.5, 1, 6, 3])
    assert found[1::2].tolist() == [0] * 6


def test_affect_is_summarized_as_the_logits_of_the_channels_read(tiny_config):
    fields = {**tiny_config.to_dict(), "affect_transform": "logits", "channels": ["expressions"]}
    model = MMAMRNNetForIntensity(MMAMRNNetConfig(**fields))
    frames = [np.full((2, 26), 0.75, np.float32)]
    rows = ClipDataset(["a"], [""], ["reaction"], np.zeros((1, 1), np.float32), frames)
    found = summarize_clips(model, rows, [0]).values[0]
    assert found[:7].tolist() == pytest.approx([np.log(3)] * 7)
    assert len(found) == 6 * 7 + 1


def test_ridge_and_trees_find_a_planted_maximum_and_a_constant_does_not(model):
    quiet = ["reaction"] * 300 + ["neutral"] * 100
    splits = {"train": clips(400, 0, quiet), "validation": clips(200, 1)}
    found = score_baselines(model, {name: ClipSplit(rows, rows) for name, rows in splits.items()})
    assert found.clips == {"constant": 300, "ridge": 300, "trees": 300}
    assert found.test == {}
    assert found.validation["constant"].mean_pearson == 0
    assert found.validation["ridge"].mean_pearson > 0.99
    assert found.validation["trees"].mean_pearson > 0.95
    assert found.validation["ridge"].mean_mae < 0.2 * found.validation["constant"].mean_mae


def test_without_a_reaction_there_is_nothing_to_compare(model):
    splits = {"train": clips(5, 0, ["neutral"] * 5), "validation": clips(5, 1)}
    assert (
        score_baselines(model, {name: ClipSplit(rows, rows) for name, rows in splits.items()})
        is None
    )


@pytest.mark.parametrize("make", [make_ridge, make_trees])
def test_missing_labels_count_for_nothing(make):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 3))
    labels = np.stack([values[:, 0], values[:, 1], np.full(60, NAN), np.full(60, NAN)], 1)
    labels[:20, 1], labels[:4, 3] = NAN, 0.5  # four labels are too few to fit
    found = fit_targets(make, Summaries(values, labels))(values)
    assert np.isfinite(found).all()
    assert np.corrcoef(found[20:, 1], labels[20:, 1])[0, 1] > 0.7
    assert (found[:, 2] == 0).all()
    assert (found[:, 3] == 0.5).all()


def results_with(results, network, **baselines):
    scores = {name: BaselineScores(value, 0.1) for name, value in baselines.items()}
    results.test = None
    results.validation.reactions.mean_pearson = network
    results.validation.reactions_with_face = None
    results.baselines = Baselines({}, scores, {})
    return results


def test_a_network_that_loses_is_told_so(mrnn_results, caplog):
    results = results_with(mrnn_results, 0.30, constant=0.0, ridge=0.36, trees=0.5)
    (finding,) = compare_with_baselines(results)
    assert "trees on summaries of the clips beats the network on validation" in finding.what
    assert finding.numbers == {"trees": 0.5, "network": 0.30}
    with caplog.at_level(logging.WARNING):
        warn_if_beaten(results)
    assert "mean Pearson 0.500 against 0.300" in caplog.text


@pytest.mark.parametrize("network", [0.5, 0.6])
def test_a_network_that_is_as_good_or_better_is_left_alone(mrnn_results, caplog, network):
    results = results_with(mrnn_results, network, ridge=0.5, trees=None)
    assert compare_with_baselines(results) == []
    warn_if_beaten(results)
    assert not caplog.text


def test_runs_that_recorded_no_baseline_are_not_judged(mrnn_results):
    mrnn_results.baselines = None
    assert compare_with_baselines(mrnn_results) is None


@pytest.fixture
def mrnn_results():

    return read_results(pretrained_folder() / "results_mrnn.json")
