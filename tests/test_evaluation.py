"""`mma-mrnnet evaluate`: scores with intervals over people, what is measured of crops, the report and its pictures."""

import json

import numpy as np
import pytest
import torch

from mma_mrnnet import MMAMRNNetConfig, MMAMRNNetForIntensity, cli
from mma_mrnnet.analysis.evaluation.looks import CHANGES, Looks, groups_of, yaw_of
from mma_mrnnet.analysis.evaluation.page import interval, number, signed
from mma_mrnnet.analysis.evaluation.people import (
    People,
    class_f1_of,
    concordances,
    confusions,
    correlations,
    f1_of,
    moments,
    presences,
    recalls_of,
)
from mma_mrnnet.analysis.evaluation.pictures import worst_action_units, worst_expressions
from mma_mrnnet.analysis.evaluation.scores import (
    Answers,
    mean_correlation,
    source_report,
    talkers_report,
)
from mma_mrnnet.analysis.evaluation.seen import evenly_spread
from mma_mrnnet.faces.detection import TEMPLATE
from mma_mrnnet.hub.checkpoints import CheckpointError, load_extractor
from mma_mrnnet.metrics import (
    concordance_scores,
    expected_calibration_error,
    f1_scores,
    macro_f1,
    pearson_scores,
)
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, NO_CLASS, neutral_talkers
from mma_mrnnet.synthetic.drawn_faces import drawn_faces
from mma_mrnnet.training.datasets import FrameDataset

NAN = float("nan")

# Intervals over people ---------------------------------------------------------------------------------------------


def mean_of(sums):
    """(..., 2) sums of a value and of 1 to their mean, (..., 1)."""
    return sums[..., :1] / sums[..., 1:]


def with_ones(values):
    return torch.stack([values, torch.ones_like(values)], dim=1)


def width(score):
    return score["high"] - score["low"]


def test_an_interval_of_a_mean_is_as_wide_as_theory_says():
    # 400 people, deviation 1: the mean's standard error is 1/20, 95 % are 2 * 1.96 / 20 = .196 wide.
    values = torch.randn(400, dtype=torch.float64)
    score = People([f"person {n}" for n in range(400)]).mean_interval(with_ones(values), mean_of)
    assert score["value"] == pytest.approx(float(values.mean()))
    assert width(score) == pytest.approx(0.196 * float(values.std()), rel=0.1)


def test_more_images_of_the_same_people_narrow_nothing():
    values = torch.randn(50, dtype=torch.float64)
    subjects = [f"person {n}" for n in range(50)]
    once = People(subjects).mean_interval(with_ones(values), mean_of)
    thrice = People(subjects * 3).mean_interval(with_ones(values.repeat(3)), mean_of)
    assert thrice == pytest.approx(once)


def test_one_persons_images_are_drawn_together():
    # Two people, all zeros and all ones: a resample's mean is 0, .5 or 1, so the limits are 0 and 1.
    values = torch.tensor([0.0] * 30 + [1.0] * 30)
    score = People(["a"] * 30 + ["b"] * 30).mean_interval(with_ones(values), mean_of)
    assert score == {"value": 0.5, "low": 0.0, "high": 1.0}


def test_one_person_has_a_score_and_no_interval():
    score = People(["a"] * 4).mean_interval(with_ones(torch.arange(4.0)), mean_of)
    assert score["value"] == 1.5
    assert np.isnan([score["low"], score["high"]]).all()


def test_a_mean_over_classes_stays_that_of_all_classes():
    # Nothing is ever called a 1. Without the one person who shows it, only class 0 is left, and its recall is 1: such
    # resamples must not raise the mean, which is .5 wherever it is defined.
    labels, named = torch.tensor([0] * 8 + [1]), torch.zeros(9, dtype=torch.long)
    people = People([f"person {n}" for n in range(9)])
    score = people.mean_interval(confusions(named, labels, 2), recalls_of)
    assert score == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_an_interval_needs_half_of_the_resamples():
    # Each of six classes is shown by one of six people: hardly any resample draws all six.
    labels = torch.arange(6)
    score = People([str(n) for n in range(6)]).mean_interval(
        confusions(labels, labels, 6), recalls_of
    )
    assert score["value"] == 1.0
    assert np.isnan([score["low"], score["high"]]).all()


def test_images_without_a_name_are_people_of_their_own():
    assert People(["", "", "anna", "anna"]).count == 3


def test_scores_of_sums_are_those_of_the_metrics():
    target, prediction = torch.rand(60, 3), torch.rand(60, 3)
    target[:20, 0] = NAN
    prediction[:, 1] = prediction[:, 1] * 0.5 + target[:, 1] + 3
    sums = moments(prediction, target).sum(0)
    torch.testing.assert_close(correlations(sums), pearson_scores(prediction, target))
    torch.testing.assert_close(concordances(sums), concordance_scores(prediction, target))
    called, present, annotated = prediction > 0.5, target > 0.5, ~target.isnan()
    torch.testing.assert_close(
        f1_of(presences(called, present, annotated).sum(0).double()),
        f1_scores(called, present, annotated),
    )


def test_a_correlation_is_unknown_where_labels_are_constant_and_0_where_the_output_is():
    prediction = torch.tensor([[0.1, 0.5, 0.3], [0.9, 0.5, 0.2]])
    target = torch.tensor([[0.3, 0.1, NAN], [0.3, 0.9, NAN]])
    scores = correlations(moments(prediction, target).sum(0))
    assert scores[1] == 0
    assert scores[[0, 2]].isnan().all()


def test_expression_scores_by_hand():
    # Of 3 zeros two are named 0 and one 1; both ones are named 1; nothing is a 2, the last image has no label.
    labels = torch.tensor([0, 0, 0, 1, 1, NO_CLASS])
    named = torch.tensor([0, 0, 1, 1, 1, 2])
    confusion = confusions(named, labels, 3).sum(0)
    assert confusion.tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert recalls_of(confusion)[:2].tolist() == pytest.approx([2 / 3, 1])
    assert class_f1_of(confusion)[:2].tolist() == pytest.approx(
        [4 / 5, 4 / 5]
    )  # 2*2/(3+2) and 2*2/(2+3)
    assert recalls_of(confusion)[2].isnan()
    assert class_f1_of(confusion)[2].isnan()
    assert float(class_f1_of(confusion).nanmean()) == pytest.approx(macro_f1(named, labels))


def test_calibration_errors_by_hand():
    # Nine of ten right at .8 is .1 off; ten of ten wrong at .3 is .3 off; half the rows each.
    probability = torch.tensor([0.8] * 10 + [0.3] * 10)
    outcome = torch.tensor([True] * 9 + [False] * 11)
    assert expected_calibration_error(probability, outcome) == pytest.approx(0.2)
    assert expected_calibration_error(torch.tensor([0.0, 1.0]), torch.tensor([False, True])) == 0
    assert np.isnan(expected_calibration_error(torch.zeros(0), torch.zeros(0, dtype=torch.bool)))


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
    }
    return Answers(tuple(ACTION_UNITS), subjects, **{**parts, **changes})


def test_a_model_that_knows_everything_scores_1():
    report = source_report(answers())
    perfect = [
        report["mean_action_unit_correlation"],
        report["mean_correlation_of_common_units"],
        report["expression"]["macro_f1"],
        report["expression"]["balanced_accuracy"],
        report["smiling_against_neutral"]["balanced_accuracy"],
        *(report["valence_arousal"][name] for name in ("valence", "arousal")),
    ]
    for score in perfect:
        assert list(score.values()) == pytest.approx([1, 1, 1])
    assert report["smiling_against_neutral"]["auc"] == 1
    assert (report["images"], report["people"], report["expression"]["images"]) == (40, 40, 40)
    assert report["expression"]["confusion"][4] == [0, 0, 0, 0, 20, 0, 0]
    # Right every time at .88, six others at .02: .12 off, and .12² + 6 * .02² = .0168.
    assert report["calibration"]["expression_ece"] == pytest.approx(0.12, abs=1e-6)
    assert report["calibration"]["expression_brier"] == pytest.approx(0.0168, abs=1e-6)


def test_what_no_label_says_anything_of_has_no_score():
    nothing = {
        "intensity": torch.full((40, len(ACTION_UNITS)), NAN),
        "expression": torch.full((40,), NO_CLASS),
        "valence_arousal": torch.full((40, 2), NAN),
    }
    report = source_report(answers(**nothing))
    unknown = [
        report["mean_action_unit_correlation"]["value"],
        report["mean_action_unit_f1"]["value"],
        report["action_units"]["AU12"]["correlation"]["value"],
        report["expression"]["macro_f1"]["value"],
        report["smiling_against_neutral"]["balanced_accuracy"]["value"],
        report["smiling_against_neutral"]["auc"],
        report["valence_arousal"]["valence"]["value"],
        *report["calibration"].values(),
    ]
    assert np.isnan(unknown).all()
    assert report["action_units"]["AU12"]["annotated"] == 0


def test_smiles_alone_tell_nothing_of_smiling_against_neutral():
    report = source_report(answers(expression=torch.full((40,), 4)))["smiling_against_neutral"]
    assert (report["smiling"], report["neutral"]) == (40, 0)
    assert np.isnan(report["balanced_accuracy"]["value"])


def test_units_with_a_constant_label_do_not_count_in_the_mean():
    intensity = torch.full((40, len(ACTION_UNITS)), 0.5)
    intensity[:, 0] = torch.linspace(0, 1, 40)
    given = answers(intensity=intensity)
    expected = float(pearson_scores(given.presence[:, :1], intensity[:, :1]))
    assert mean_correlation(given) == pytest.approx(expected)


def talker(**units):
    row = dict.fromkeys(ACTION_UNITS, 0.0) | {int(name[2:]): value for name, value in units.items()}
    return torch.tensor([list(row.values())])


@pytest.mark.parametrize(
    ("units", "talks"),
    [
        ({"au25": 0.6}, True),
        ({"au26": 0.2}, True),
        ({"au25": 0.15}, False),  # hardly open
        ({}, False),
        ({"au25": 0.6, "au10": 0.19}, True),  # .25 * .6 + .05 = .20
        ({"au25": 0.6, "au10": 0.21}, False),
        ({"au25": NAN, "au26": 0.5, "au10": 0.06}, False),  # without AU25 a trace is .05
        ({"au25": 0.6, "au12": 0.05}, False),
        ({"au25": 0.6, "au12": 0.04}, True),
        ({"au25": 0.6, "au12": NAN}, False),  # may be a smile
        ({"au25": 0.6, "au06": NAN}, True),
        ({"au25": NAN, "au26": NAN}, False),
    ],
)
def test_calm_talkers_open_the_mouth_and_do_nothing_else(units, talks):
    assert neutral_talkers(talker(**units), ACTION_UNITS).tolist() == [talks]


def test_without_brow_or_smile_among_the_units_nobody_is_a_calm_talker():
    assert neutral_talkers(torch.tensor([[0.0, 0.0, 0.9]]), (1, 4, 25)).tolist() == [False]
    assert neutral_talkers(torch.tensor([[0.0, 0.0, 0.0, 0.9]]), (1, 4, 12, 25)).tolist() == [True]


def test_the_mean_over_calm_talkers_leaves_out_those_with_an_expression():
    intensity = torch.cat([talker(au25=0.6), talker(au25=0.6), talker(au25=0.6), talker(au12=0.9)])
    given = answers(
        4, intensity=intensity, expression=torch.tensor([NO_CLASS, NO_CLASS, 0, NO_CLASS])
    )
    given.affect[:, 2] = torch.tensor([0.2, 0.4, 0.9, 0.9])
    report = talkers_report(given)
    assert report["images"] == 2
    assert report["mean_expression"]["neutral"] == pytest.approx(0.3)


# How crops look ----------------------------------------------------------------------------------------------------


def test_a_nose_beside_the_middle_of_the_eyes_is_a_turned_head():
    landmarks = np.array([[40.0, 40], [80, 40], [60, 60], [50, 80], [70, 80]])
    assert yaw_of(landmarks) == 0
    landmarks[2] = [70, 60]  # a quarter of the eyes' distance off: atan(.25 / .5)
    assert yaw_of(landmarks) == pytest.approx(26.565, abs=1e-3)
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    assert yaw_of(landmarks @ turn) == pytest.approx(
        26.565, abs=1e-3
    )  # a tilt of the head changes nothing
    assert yaw_of(TEMPLATE) < 1


def test_groups_are_thirds_of_each_source_and_leave_out_who_has_no_pose():
    looks = Looks(
        yaw=torch.tensor([0.0, 10, 20, NAN, 30, 5]),
        sharpness=torch.tensor([3.0, 1, 2, 300, 100, 200]),
        colour=torch.tensor([0.0, 30, 30, 0, 30, 1.9]),
    )
    groups = groups_of(looks, np.array(["a", "a", "a", "b", "b", "b"]))
    assert [chosen.nonzero().flatten().tolist() for chosen in groups["pose"].values()] == [
        [0, 5],
        [1],
        [2, 4],
    ]
    assert [chosen.nonzero().flatten().tolist() for chosen in groups["blur"].values()] == [
        [1, 4],
        [2, 5],
        [0, 3],
    ]
    assert groups["grey"]["grey"].tolist() == [True, False, False, True, False, True]


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_form_and_type_and_changes_something(name):
    crop = np.asarray(drawn_faces(1, seed=0, size=112)[0]["image"]).copy()
    before = crop.copy()
    changed = CHANGES[name](crop)
    assert (changed.shape, changed.dtype) == (crop.shape, np.uint8)
    assert np.array_equal(crop, before)
    assert 0 < np.abs(changed.astype(int) - crop).mean() < 60


def test_changes_do_what_they_are_called():
    crop = np.zeros((112, 112, 3), np.uint8)
    crop[:, :56] = (200, 100, 0)
    assert CHANGES["mirror"](crop)[0, 111].tolist() == [200, 100, 0]
    grey = CHANGES["grey"](crop)
    assert grey[0, 0].tolist() == [119, 119, 119]  # .299 * 200 + .587 * 100 = 118.5
    red = CHANGES["jpeg 50"](np.full((16, 16, 3), (250, 5, 5), np.uint8))
    assert red[8, 8, 0] > 200  # red stays red: channels keep their places


def test_images_are_spread_over_each_source():
    sources = np.array(["a"] * 5 + ["b"] * 2)
    assert evenly_spread(sources, 3).tolist() == [0, 2, 4, 5, 6]


# Failures ----------------------------------------------------------------------------------------------------------


def test_failures_are_the_surest_wrong_expressions_and_the_largest_unit_errors():
    given = answers(6)
    given.affect[1, 2:9] = torch.tensor([0.7, 0, 0, 0, 0.3, 0, 0])
    given.affect[3, 2:9] = torch.tensor([0.9, 0, 0, 0, 0.1, 0, 0])
    own = torch.tensor([True] * 5 + [False])
    assert worst_expressions(given, own, 5) == [
        (3, "happiness", "neutral 0.90"),
        (1, "happiness", "neutral 0.70"),
    ]
    given.intensity.fill_(NAN)
    given.intensity[2, 8], given.affect[2, 9 + 8] = 0.4, 0.75  # .4 stands for .5: off by .25
    given.intensity[4, 9], given.affect[4, 9 + 9] = 0.8, 0.0  # .8 stands for 1: off by 1
    assert worst_action_units(given, own, 5) == [
        (4, "AU12 0.80", "AU12 0.00"),
        (2, "AU11 0.40", "AU11 0.75"),
    ]


# The page ----------------------------------------------------------------------------------------------------------


def test_numbers_of_the_page():
    assert [number(value) for value in (0.3649, 1.0, 0.9999, -0.25, None)] == [
        ".365",
        "1.000",
        "1.000",
        "-.250",
        "-",
    ]
    assert [signed(value) for value in (0.02, -0.02, None)] == ["+.020", "-.020", "-"]
    assert interval({"value": 0.5, "low": 0.25, "high": 0.75}) == ".500 [.250, .750]"
    assert interval({"value": 0.5, "low": None, "high": None}) == ".500"


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
    drawn_faces(4, seed=0, size=32).to_parquet(str(folder / "train-0.parquet"))
    rows = drawn_faces(24, seed=1, size=32).remove_columns("source")
    rows.add_column("source", ["warp"] * 12 + ["congress"] * 12).to_parquet(
        str(folder / "validation-0.parquet")
    )
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
    assert list(report) == [
        *("what", "command", "model", "data", "sources", "neutral_talkers", "groups", "invariance"),
        *("mirrored_average", "against"),
    ]
    assert report["model"]["megabytes"] > 0 < report["model"]["cpu_ms_a_face"]
    assert report["data"]["images"] == 24
    assert "heuristic" in report["data"]["label_origin"]["valence_arousal"]
    assert set(report["sources"]) == {"warp", "congress"}
    assert [scores["images"] for scores in report["sources"].values()] == [12, 12]
    assert list(report["neutral_talkers"]) == ["warp"]
    assert list(report["groups"]) == ["pose", "blur", "grey"]
    assert list(report["invariance"]) == list(CHANGES)
    assert set(report["against"]) == {"model", "sources"}
    # The two hold one extractor's shape with weights of their own, and the page tells them apart.
    page = (out / "evaluation.md").read_text()
    assert f"Against {checkpoint}" in page
    assert "## By pose" in page


@pytest.mark.usefixtures("settings_kept")
def test_no_picture_of_anybody_is_written_unasked(stage1, faces, tmp_path):
    out = tmp_path / "out"
    assert cli.main(["evaluate", str(stage1), "--data", str(faces), "--out", str(out)]) == 0
    assert not (out / "failures.png").exists()
    assert json.loads((out / "evaluation.json").read_text())["against"] is None


@pytest.mark.usefixtures("settings_kept")
def test_drawn_faces_are_evaluated_and_say_nothing_of_where_labels_come_from(
    stage1, tmp_path, monkeypatch
):
    monkeypatch.setattr("mma_mrnnet.analysis.evaluation.run.DRAWN_ITEMS", 40)
    assert (
        cli.main(["evaluate", str(stage1), "--data", "drawn", "--out", str(tmp_path / "out")]) == 0
    )
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert (report["data"]["images"], report["data"]["label_origin"]) == (8, None)


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
    assert (
        "--pictures: no source is called wrap; there are congress, warp" in capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


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
