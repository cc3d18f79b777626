"""`mma-mrnnet evaluate`: scores with intervals over people, what is measured of crops, the report and its pictures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mma_mrnnet import MMAMRNNetConfig, MMAMRNNetForIntensity, cli
from mma_mrnnet.analysis.evaluation_page import find_wrong_expressions, find_wrong_units
from mma_mrnnet.analysis.extractor_scores import (
    Answers,
    score_source,
    score_talkers,
)
from mma_mrnnet.analysis.markdown import format_interval, format_number, format_signed
from mma_mrnnet.hub.checkpoints import CheckpointError, load_extractor, pretrained_folder
from mma_mrnnet.metrics import pearson_scores
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, NO_CLASS, neutral_talkers
from mma_mrnnet.results import EvaluationResults
from mma_mrnnet.synthetic.drawn_faces import drawn_faces
from mma_mrnnet.training.datasets import FrameDataset

NAN = float("nan")

# One source --------------------------------------------------------------------------------------------------------


def answers(count=40, **changes):
    """Images of as many people whose AU labels the model knows, and whose neutral and smiles it tells apart."""
    rng = torch.Generator().manual_seed(0)
    intensity = torch.rand(count, len(ACTION_UNITS), generator=rng)
    expression = torch.tensor([0, 4]).repeat(count // 2)
    probabilities = torch.full((count, len(EXPRESSIONS)), 0.02)
    probabilities[torch.arange(count), expression] = 0.88
    valence_arousal = torch.rand(count, 2, generator=rng)
    affect = torch.cat([valence_arousal, probabilities, intensity], dim=1)
    subjects = np.array([f"person {number}" for number in range(count)])
    parts = {
        "intensity": intensity,
        "expression": expression,
        "valence_arousal": valence_arousal,
        "affect": affect,
        "copies": affect[:, None, 9:].expand(-1, 3, -1),
    }
    return Answers(tuple(ACTION_UNITS), subjects, **{**parts, **changes})


def test_a_model_that_knows_everything_scores_1():
    scores = score_source(answers())
    perfect = [
        scores.mean_action_unit_correlation,
        scores.mean_correlation_of_common_units,
        scores.expression.macro_f1,
        scores.expression.balanced_accuracy,
        scores.smiling_against_neutral.balanced_accuracy,
        scores.valence_arousal.valence,
        scores.valence_arousal.arousal,
    ]
    for score in perfect:
        assert [score.value, score.low, score.high] == pytest.approx([1, 1, 1])
    assert scores.smiling_against_neutral.auc == 1
    assert (scores.images, scores.people, scores.expression.images) == (40, 40, 40)
    assert scores.expression.confusion[4] == [0, 0, 0, 0, 20, 0, 0]
    # Right every time at .88, six others at .02: .12 off, and .12² + 6 * .02² = .0168.
    assert scores.calibration.expression_ece == pytest.approx(0.12, abs=1e-6)
    assert scores.calibration.expression_brier == pytest.approx(0.0168, abs=1e-6)


def test_what_no_label_says_anything_of_has_no_score():
    nothing = {
        "intensity": torch.full((40, len(ACTION_UNITS)), NAN),
        "expression": torch.full((40,), NO_CLASS),
        "valence_arousal": torch.full((40, 2), NAN),
    }
    scores = score_source(answers(**nothing))
    unknown = [
        scores.mean_action_unit_correlation.value,
        scores.mean_action_unit_f1.value,
        scores.action_units["AU12"].correlation.value,
        scores.expression.macro_f1.value,
        scores.smiling_against_neutral.balanced_accuracy.value,
        scores.smiling_against_neutral.auc,
        scores.valence_arousal.valence.value,
        *scores.calibration.to_json().values(),
    ]
    assert np.isnan(unknown).all()
    assert scores.action_units["AU12"].annotated == 0


def test_smiles_alone_tell_nothing_of_smiling_against_neutral():
    scores = score_source(answers(expression=torch.full((40,), 4))).smiling_against_neutral
    assert (scores.smiling, scores.neutral) == (40, 0)
    assert np.isnan(scores.balanced_accuracy.value)


def test_units_with_a_constant_label_do_not_count_in_the_mean():
    intensity = torch.full((40, len(ACTION_UNITS)), 0.5)
    intensity[:, 0] = torch.linspace(0, 1, 40)
    given = answers(intensity=intensity)
    expected = float(pearson_scores(given.presence[:, :1], intensity[:, :1]))
    assert score_source(given).mean_action_unit_correlation.value == pytest.approx(expected)


def test_a_unit_shown_by_fewer_than_ten_images_does_not_count_in_the_mean_f1():
    intensity = torch.zeros(40, len(ACTION_UNITS))
    intensity[:10, 0], intensity[:9, 1] = 1.0, 1.0
    affect = torch.cat([torch.zeros(40, 9), intensity], dim=1)
    affect[:, 9 + 1] = 0  # the second unit is never called
    scores = score_source(answers(intensity=intensity, affect=affect))
    assert scores.action_units["AU02"].f1.value == 0
    assert scores.mean_action_unit_f1.value == 1


def talker(**units):
    row = dict.fromkeys(ACTION_UNITS, 0.0) | {int(name[2:]): value for name, value in units.items()}
    return torch.tensor([list(row.values())])


@pytest.mark.parametrize(
    ("units", "talks"),
    [
        ({"au25": 0.5}, True),
        ({"au25": 0.51}, False),  # a gasp or a yawn
        ({"au26": 0.2}, True),
        ({"au25": 0.15}, False),  # hardly open
        ({}, False),
        ({"au25": 0.4, "au10": 0.14}, True),  # .25 * .4 + .05 = .15
        ({"au25": 0.4, "au10": 0.16}, False),
        ({"au25": NAN, "au26": 0.5, "au10": 0.06}, False),  # without AU25 a trace is .05
        ({"au25": 0.4, "au12": 0.05}, False),
        ({"au25": 0.4, "au12": 0.04}, True),
        ({"au25": 0.4, "au12": NAN}, False),  # may be a smile
        ({"au25": 0.4, "au06": NAN}, True),
        ({"au25": NAN, "au26": NAN}, False),
    ],
)
def test_calm_talkers_open_the_mouth_and_do_nothing_else(units, talks):
    assert neutral_talkers(talker(**units), ACTION_UNITS).tolist() == [talks]


def test_without_brow_or_smile_among_the_units_nobody_is_a_calm_talker():
    assert neutral_talkers(torch.tensor([[0.0, 0.0, 0.4]]), (1, 4, 25)).tolist() == [False]
    assert neutral_talkers(torch.tensor([[0.0, 0.0, 0.0, 0.4]]), (1, 4, 12, 25)).tolist() == [True]


def test_the_mean_over_calm_talkers_leaves_out_those_with_an_expression():
    intensity = torch.cat([talker(au25=0.4), talker(au25=0.4), talker(au25=0.4), talker(au12=0.9)])
    given = answers(
        4, intensity=intensity, expression=torch.tensor([NO_CLASS, NO_CLASS, 0, NO_CLASS])
    )
    given.affect[:, 2] = torch.tensor([0.2, 0.4, 0.9, 0.9])
    talkers = score_talkers(given)
    assert talkers.images == 2
    assert talkers.mean_expression["neutral"] == pytest.approx(0.3)


# Failures ----------------------------------------------------------------------------------------------------------


def test_failures_are_the_surest_wrong_expressions_and_the_largest_unit_errors():
    given = answers(6)
    given.affect[1, 2:9] = torch.tensor([0.7, 0, 0, 0, 0.3, 0, 0])
    given.affect[3, 2:9] = torch.tensor([0.9, 0, 0, 0, 0.1, 0, 0])
    own = torch.tensor([True] * 5 + [False])
    assert find_wrong_expressions(given, own, 5) == [
        (3, "happiness", "neutral 0.90"),
        (1, "happiness", "neutral 0.70"),
    ]
    given.intensity.fill_(NAN)
    given.intensity[2, 8], given.affect[2, 9 + 8] = 0.4, 0.75  # .4 stands for .5: off by .25
    given.intensity[4, 9], given.affect[4, 9 + 9] = 0.8, 0.0  # .8 stands for 1: off by 1
    assert find_wrong_units(given, own, 5) == [
        (4, "AU12 0.80", "AU12 0.00"),
        (2, "AU11 0.40", "AU11 0.75"),
    ]


# The page ----------------------------------------------------------------------------------------------------------


def test_numbers_of_the_page():
    assert [format_number(value) for value in (0.3649, 1.0, 0.9999, -0.25, None)] == [
        ".365",
        "1.000",
        "1.000",
        "-.250",
        "-",
    ]
    assert [format_signed(value) for value in (0.02, -0.02, 0.0, None)] == [
        "+.020",
        "-.020",
        ".000",
        "-",
    ]
    assert format_interval(0.5, 0.25, 0.75) == ".500 [.250, .750]"
    assert format_interval(0.5, None, None) == ".500"


# The command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path):
    folder = tmp_path / "checkpoint"
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture
def stage1(tiny_mma, tiny_processor, tmp_path):
    folder = tmp_path / "stage 1"
    tiny_mma.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture
def faces(tmp_path):
    """24 drawn faces as validation, twelve of them called bent photos, with the columns of labelled crops."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for seed, (split, count) in enumerate({"train": 4, "validation": 24}.items()):
        rows = drawn_faces(count, seed=seed, size=32).remove_columns("source")
        names = ["warp"] * (count // 2) + ["congress"] * (count // 2)
        rows.add_column("source", names).to_parquet(str(folder / f"{split}-0.parquet"))
    sources = [
        {"name": "congress", "licence": "public-domain", "labels": "pseudo"},
        {"name": "warp", "licence": "cc-by-4.0", "made_up": True, "labels": "constructed"},
    ]
    (folder / "provenance.json").write_text(json.dumps(sources))
    return folder


@pytest.mark.usefixtures("settings_kept")
def test_the_command_writes_everything_that_it_says(checkpoint, stage1, faces, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "evaluate",
        stage1,
        "--data",
        faces,
        "--out",
        out,
        "--against",
        checkpoint,
        "--pictures",
        "warp",
    ]
    assert cli.main([str(word) for word in words]) == 0
    assert "evaluation.json, evaluation.md, evaluation.png, failures.png" in capsys.readouterr().err
    names = {"evaluation.json", "evaluation.md", "evaluation.png", "failures.png"}
    assert {path.name for path in out.iterdir()} == names
    report = json.loads((out / "evaluation.json").read_text())
    assert (report["format"], "invariance" in report) == (1, False)
    assert EvaluationResults.from_json(report).to_json() == report
    assert report["model"]["megabytes"] > 0 < report["model"]["cpu_ms_a_face"]
    assert report["data"]["images"] == 24
    assert [one["labels"] for one in report["data"]["provenance"]] == ["pseudo", "constructed"]
    assert set(report["sources"]) == {"warp", "congress"}
    assert [scores["images"] for scores in report["sources"].values()] == [12, 12]
    assert list(report["neutral_talkers"]) == ["warp"]
    assert report["sources"]["warp"]["steadiness"]["units"]
    assert set(report["against"]) == {"model", "sources"}
    # The two hold one extractor's shape with weights of their own, and the page tells them apart.
    page = (out / "evaluation.md").read_text()
    assert f"Against {checkpoint}" in page
    assert "## Steadiness of warp" in page
    assert "Labels: congress another model's, warp known by construction." in page


@pytest.mark.usefixtures("settings_kept")
def test_no_picture_of_anybody_is_written_unasked(stage1, faces, tmp_path):
    out = tmp_path / "out"
    assert cli.main(["evaluate", str(stage1), "--data", str(faces), "--out", str(out)]) == 0
    assert not (out / "failures.png").exists()
    assert json.loads((out / "evaluation.json").read_text())["against"] is None


@pytest.mark.usefixtures("settings_kept")
def test_drawn_faces_are_evaluated_and_their_labels_are_known_by_construction(
    stage1, tmp_path, monkeypatch
):
    monkeypatch.setattr("mma_mrnnet.analysis.evaluation.DRAWN_ITEMS", 40)
    assert (
        cli.main(["evaluate", str(stage1), "--data", "drawn", "--out", str(tmp_path / "out")]) == 0
    )
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert report["data"]["images"] == 8
    assert [one["labels"] for one in report["data"]["provenance"]] == ["constructed"]


def test_an_evaluation_written_before_formats_had_numbers_is_read():
    path = pretrained_folder() / "results_evaluation.json"
    written = json.loads(path.read_text("utf-8"))
    del written["format"], written["data"]["provenance"]
    for source in written["sources"].values():
        source.pop("steadiness", None)
    results = EvaluationResults.from_json(written)
    assert results.sources["warp"].images == 1248
    assert results.data.provenance == []


@pytest.mark.usefixtures("settings_kept")
def test_a_source_that_there_is_not_is_named_before_anything_is_computed(
    stage1, faces, tmp_path, capsys
):
    words = [
        "evaluate",
        stage1,
        "--data",
        faces,
        "--out",
        tmp_path / "out",
        "--pictures",
        "warp",
        "wrap",
    ]
    assert cli.main([str(word) for word in words]) == 1
    assert "--pictures: unknown source wrap; there are congress, warp" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_named_before_anything_is_read(tmp_path, capsys):
    out = Path("/proc/out")  # where not even root can write
    if not out.parent.is_dir():
        pytest.skip("no /proc on this system")
    words = ["evaluate", str(tmp_path / "no model"), "--data", "drawn", "--out", str(out)]
    assert cli.main(words) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.usefixtures("settings_kept")
def test_images_without_a_label_are_refused(stage1, tmp_path, capsys):
    folder = tmp_path / "faces"
    folder.mkdir()
    rows = drawn_faces(6, seed=0, size=32)
    rows.to_parquet(str(folder / "train-0.parquet"))
    names = ["expression", "valence", "arousal", *(f"au{unit:02d}" for unit in ACTION_UNITS)]
    bare = drawn_faces(6, seed=1, size=32)
    for name in names:
        bare = bare.remove_columns(name).add_column(
            name, [NO_CLASS if name == "expression" else NAN] * 6
        )
    bare.to_parquet(str(folder / "validation-0.parquet"))
    assert (
        cli.main(["evaluate", str(stage1), "--data", str(folder), "--out", str(tmp_path / "out")])
        == 1
    )
    assert "none of the 6 validation images has a label" in capsys.readouterr().err


def test_a_checkpoint_of_tables_holds_no_extractor(tiny_processor, tmp_path):
    config = MMAMRNNetConfig(
        mma_config=None, feature_names=["a", "b"], num_frames=4, hidden_size=8, dense_size=6
    )
    MMAMRNNetForIntensity(config).save_pretrained(tmp_path / "tables")
    tiny_processor.save_pretrained(tmp_path / "tables")
    with pytest.raises(CheckpointError, match="tables of features and holds no extractor"):
        load_extractor(tmp_path / "tables")


def test_both_kinds_of_checkpoint_give_their_extractor(checkpoint, stage1, tiny_model, tiny_mma):
    for folder, expected in ((checkpoint, tiny_model.mma), (stage1, tiny_mma)):
        extractor, _ = load_extractor(folder)
        assert torch.equal(extractor.expression_head.weight, expected.expression_head.weight)
        assert not extractor.training


def test_people_of_a_data_set_are_kept():
    rows = FrameDataset(drawn_faces(3, seed=0, size=32))
    assert rows.subjects == ["drawn-0-000000", "drawn-0-000001", "drawn-0-000002"]
