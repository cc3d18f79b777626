"""The package's `evaluate` modules, loaded from their folders with no network, give the package's own scores."""

import re
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from huggingface_hub import RepoCard

from mma_mrnnet.metrics import EVALUATE_MODULES, concordance_scores, load_metric, pearson_scores

FOLDERS = Path(__file__).resolve().parents[1] / "mma_mrnnet" / "evaluate_modules"
NAN = float("nan")
SCORES = {"mean_pearson": "pearson", "concordance": "ccc", "action_unit_f1": "f1"}


@pytest.fixture(autouse=True)
def own_folder_for_stored_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)
    monkeypatch.setattr(evaluate.module.config, "HF_METRICS_CACHE", tmp_path)


@pytest.fixture
def split():
    rng = np.random.default_rng(0)
    references = rng.random((40, 3))
    predictions = (references + 0.3 * rng.standard_normal((40, 3))).clip(0, 1)
    references[::7, 1] = NAN
    return predictions, references


def from_folder(name):
    return evaluate.load(str(FOLDERS / name))


def test_every_folder_is_a_module_that_can_be_named():
    assert sorted(EVALUATE_MODULES) == sorted(
        path.name for path in FOLDERS.iterdir() if path.name != "__pycache__"
    )
    for name in EVALUATE_MODULES:
        assert load_metric(name).name == from_folder(name).name == name
    with pytest.raises(
        ValueError, match="mean_pearson, concordance, action_unit_f1; got 'accuracy'"
    ):
        load_metric("accuracy")


def test_a_module_is_found_by_a_path_from_the_checkout(monkeypatch):
    monkeypatch.chdir(FOLDERS.parents[1])
    assert evaluate.load("mma_mrnnet/evaluate_modules/mean_pearson").name == "mean_pearson"


@pytest.mark.parametrize("name", EVALUATE_MODULES)
def test_rows_batches_and_a_whole_split_give_the_same_scores(name, split):
    predictions, references = split
    whole = from_folder(name).compute(predictions=predictions, references=references)
    batches, rows = from_folder(name), load_metric(name)  # two at once
    for first in range(0, 40, 16):
        batches.add_batch(
            predictions=predictions[first : first + 16], references=references[first : first + 16]
        )
    for prediction, reference in zip(predictions, references, strict=True):
        rows.add(prediction=prediction, reference=reference)
    assert batches.compute() == whole == rows.compute()
    with_none = np.where(np.isnan(references), None, references).tolist()
    tensors = load_metric(name).compute(
        predictions=torch.from_numpy(predictions), references=with_none
    )
    assert tensors == whole


def test_the_scores_are_the_packages_own(split):
    prediction, target = map(torch.from_numpy, split)
    found = load_metric("mean_pearson").compute(predictions=split[0], references=split[1])
    assert found["pearson"] == pearson_scores(prediction, target).tolist()
    assert found["mean_pearson"] == pytest.approx(np.mean(found["pearson"]))
    rated = ~np.isnan(split[1][:, 1])
    assert found["pearson"][1] == pytest.approx(
        np.corrcoef(split[0][rated, 1], split[1][rated, 1])[0, 1]
    )
    found = load_metric("concordance").compute(predictions=split[0], references=split[1])
    assert found["ccc"] == concordance_scores(prediction, target).tolist()


def test_scores_by_hand_under_the_targets_names():
    rows = {
        "predictions": [[1.0, 2.0], [2.0, 1.0], [4.0, 2.0]],
        "references": [[1.0, 1.0], [3.0, 2.0], [3.0, NAN]],
    }
    scores = load_metric("mean_pearson").compute(**rows, names=["joy", "fear"])
    # x - 7/3 = -4/3, -1/3, 5/3; y - 7/3 = -4/3, 2/3, 2/3: 24/9 over sqrt(42/9 * 24/9). The other pair is opposed.
    assert scores["pearson"] == {
        "joy": pytest.approx((24 / 9) / (42 / 9 * 24 / 9) ** 0.5),
        "fear": pytest.approx(-1.0),
    }
    # Means agree: 2 * (24/9 / 3) / (42/9 / 3 + 24/9 / 3).
    ccc = load_metric("concordance").compute(**rows, names=["joy", "fear"])["ccc"]
    assert ccc["joy"] == pytest.approx(2 * 24 / (42 + 24))


def test_action_unit_f1_is_the_harmonic_mean_of_precision_and_recall_over_the_annotated_rows(split):
    predictions, references = split
    scores = load_metric("action_unit_f1").compute(
        predictions=predictions, references=references, threshold=0.6
    )
    for unit in range(3):
        rated = ~np.isnan(references[:, unit])
        truth, called = references[rated, unit] >= 0.4, predictions[rated, unit] >= 0.6
        precision, recall = truth[called].mean(), called[truth].mean()
        assert scores["f1"][unit] == pytest.approx(2 * precision * recall / (precision + recall))
    assert scores["mean_f1"] == pytest.approx(np.mean(scores["f1"]))


def test_action_unit_f1_leaves_a_unit_without_a_positive_row_out_of_its_mean():
    rows = {"predictions": [[0.9, 0.9], [0.6, 0.2]], "references": [[1, 0], [0, NAN]]}
    scores = load_metric("action_unit_f1").compute(**rows, names=["AU06", "AU12"])
    assert scores["f1"] == {"AU06": pytest.approx(2 / 3), "AU12": pytest.approx(NAN, nan_ok=True)}
    assert scores["mean_f1"] == pytest.approx(2 / 3)  # one hit, two called, one positive


@pytest.mark.parametrize("name", ["mean_pearson", "concordance"])
def test_constant_columns_and_too_few_rows_are_nan_and_a_collapsed_output_costs(name):
    key = SCORES[name]
    rows = {
        "predictions": [[1.0, 5.0, 1.0], [2.0, 5.0, 2.0]],
        "references": [[1.0, 1.0, 3.0], [2.0, 2.0, 3.0]],
    }
    scores = load_metric(name).compute(**rows)
    assert scores[key] == [
        pytest.approx(1.0),
        pytest.approx(NAN, nan_ok=True),
        pytest.approx(NAN, nan_ok=True),
    ]
    assert scores[f"mean_{key}"] == pytest.approx(
        0.5
    )  # the second target's prediction is constant, the third's label
    one = load_metric(name).compute(predictions=[[1.0]], references=[[1.0]])
    assert np.isnan(one[f"mean_{key}"]) and np.isnan(one[key][0])


def test_several_are_combined():
    paths = [str(FOLDERS / "mean_pearson"), str(FOLDERS / "concordance")]
    combined = evaluate.combine(paths)
    combined.add_batch([[0.0], [1.0], [2.0]], [[0.0], [1.0], [2.0]])
    perfect = {"mean_pearson": 1.0, "pearson": {"joy": 1.0}, "mean_ccc": 1.0, "ccc": {"joy": 1.0}}
    assert combined.compute(names=["joy"]) == {
        key: value if isinstance(value, dict) else pytest.approx(value)
        for key, value in perfect.items()
    }


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ([[1.0, 0.0]], [[1.0, 0.0]] * 2, "Mismatch in the number of predictions"),
        ([[0.1, 0.2]] * 2, [[0.1, 0.2, 0.3]] * 2, r"rows of \[2, 3\] numbers"),
        ([0.1, 0.2], [0.1, 0.2], "don't match the expected format"),
        ([], [], "no rows were added"),
        ([[NAN]] * 2, [[0.5]] * 2, "finite wherever there is a label"),
    ],
    ids=["rows", "targets", "one dimension", "nothing", "no prediction"],
)
def test_what_cannot_be_scored_is_refused_and_the_object_goes_on(predictions, references, message):
    metric = load_metric("mean_pearson")
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=predictions, references=references)
    assert metric.compute(predictions=[[0.0], [1.0]], references=[[0.0], [1.0]])["pearson"] == [
        pytest.approx(1.0)
    ]


def test_action_units_marked_unlabelled_in_a_corpus_own_way_are_refused():
    with pytest.raises(ValueError, match="such as -1, 9 or 999 must become NaN"):
        load_metric("action_unit_f1").compute(predictions=[[0.5]], references=[[-1]])


@pytest.mark.parametrize("name", EVALUATE_MODULES)
def test_a_card_has_metadata_names_every_score_and_its_example_runs(name, monkeypatch):
    monkeypatch.chdir(FOLDERS.parents[1])
    card = RepoCard.load(FOLDERS / name / "README.md", ignore_metadata_errors=False)
    assert card.data.to_dict()["tags"] == ["evaluate", "metric"]
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    found = {}
    exec(code, found)
    for key, value in found["scores"].items():
        assert f"`{key}`" in card.text
        assert np.isfinite(list(value.values()) if isinstance(value, dict) else value).all()
    for key in (SCORES[name], f"mean_{SCORES[name]}", "names"):
        assert f"{key}:" in found["metric"].inputs_description


@pytest.mark.parametrize("threshold", [0.0, 1.5, float("nan")])
def test_a_threshold_that_no_probability_can_be_judged_by_is_refused(threshold):
    with pytest.raises(ValueError, match="threshold must be above 0 and at most 1"):
        load_metric("action_unit_f1").compute(
            predictions=[[0.9]], references=[[1.0]], threshold=threshold
        )
