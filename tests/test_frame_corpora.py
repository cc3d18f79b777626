"""What `--stage mma --data ...` becomes: supervision checked, corpora mixed, what an epoch draws, a choice of units."""

import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from mma_mrnnet import MMAConfig, MMAModel, MMAMRNNetForIntensity, corpora
from mma_mrnnet.corpora import load_frames
from mma_mrnnet.corpora.frame_tables import has_file
from mma_mrnnet.hub.export import export_checkpoint
from mma_mrnnet.model.labels import ACTION_UNITS, neutral_talkers
from mma_mrnnet.synthetic.drawn_faces import drawn_faces
from mma_mrnnet.train import main
from mma_mrnnet.training.arguments import TrainArguments, parse_arguments
from mma_mrnnet.training.augmentation import mixed_seed
from mma_mrnnet.training.datasets import FrameDataset
from mma_mrnnet.training.frame_corpora import check_supervision, items_an_epoch, untrained_outputs
from mma_mrnnet.training.sampling import corpus_draws
from mma_mrnnet.training.stages import mma_stage

TINY = [
    "--stage",
    "mma",
    "--image_size",
    "32",
    "--batch_size",
    "8",
    "--epochs",
    "2",
    "--learning_rate",
    "0.01",
]
TINY += [
    "--layer_type",
    "basic",
    "--embedding_size",
    "8",
    "--hidden_sizes",
    "8",
    "16",
    "--depths",
    "1",
    "1",
]


def write_photos(root, rows, header="expression,au12,au14"):
    """A labelled folder: one split, label cells after the header's names, each photo of a person of its own."""
    root.mkdir(parents=True, exist_ok=True)
    lines = [f"file_name,subject,split,{header}"]
    for number, (split, cells) in enumerate(rows):
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        lines.append(f"{number}.png,person {number},{split},{cells}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def two_corpora(tmp_path, monkeypatch):
    """24 drawn faces and 8 photos: five smiles, an anger, and two with units alone."""
    monkeypatch.setattr(corpora.datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "faces").mkdir()
    drawn_faces(24, seed=0, size=32).to_parquet(str(tmp_path / "faces" / "train-0.parquet"))
    drawn_faces(9, seed=1, size=32).to_parquet(str(tmp_path / "faces" / "validation-0.parquet"))
    cells = ["happiness,,"] * 5 + ["anger,,", ",1,0", ",0,1"]
    rows = [
        *(("train", cell) for cell in cells),
        ("validation", "happiness,1,0"),
        ("validation", "neutral,0,1"),
    ]
    photos = write_photos(tmp_path / "photos", rows)
    return f"face_parquet:{tmp_path / 'faces'},labelled_folder:{photos}"


def arguments(data, output="run", **settings):
    return TrainArguments(stage="mma", data=data, output=Path(output), image_size=32, **settings)


# What an epoch draws -----------------------------------------------------------------------------------------------


def test_every_batch_has_its_share_of_each_corpus(two_corpora):
    stage = mma_stage(arguments(two_corpora))
    items = stage.order(torch.Generator().manual_seed(0)).tolist()
    assert sorted(items) == list(range(32))
    # A quarter are photos: 2 of 8 in each batch, but where a boundary falls between two of equal time.
    photos = [
        [stage.train.sources[item] for item in items[start:][:8]].count("labelled_folder")
        for start in (0, 8)
    ]
    assert photos == [2, 2]


def test_augmentation_follows_the_runs_seed_and_the_epoch_that_began(two_corpora):
    stage = mma_stage(arguments(two_corpora, seed=7))
    for epoch in (3, 0):
        stage.begin_epoch(epoch)
        assert [stage.train[item]["augmentation_seed"] for item in (0, 5)] == [
            mixed_seed(7, epoch, item) for item in (0, 5)
        ]


@pytest.mark.parametrize(
    ("balance", "images", "photos_labels"),
    [
        ("off", (24, 8), {"valence_arousal": 0, "expression": 6, "action_units": 2}),
        ("corpora", (16, 16), {"valence_arousal": 0, "expression": 12, "action_units": 4}),
        ("classes", (24, 8), {"valence_arousal": 0, "expression": 6, "action_units": 2}),
    ],
)
def test_the_description_says_what_an_epoch_draws(
    two_corpora, balance, images, photos_labels, caplog
):
    caplog.set_level(
        logging.INFO, logger="mma_mrnnet"
    )  # the command line, tested before, may have raised it
    drawn = mma_stage(arguments(two_corpora, balance=balance)).data.items_an_epoch
    assert (drawn["drawn"]["images"], drawn["labelled_folder"]["images"]) == images
    assert drawn["labelled_folder"] == {"images": images[1], **photos_labels}
    assert caplog.text.count("an epoch draws") == 1


def test_the_description_is_what_is_drawn(two_corpora):
    stage = mma_stage(arguments(two_corpora, balance="classes"))
    items = stage.order(torch.Generator().manual_seed(0))
    photos = torch.tensor([source == "labelled_folder" for source in stage.train.sources])
    labels = stage.train.expression[items[photos[items]]].tolist()
    assert sorted(labels) == [-100] * 2 + [1] * 3 + [4] * 3  # one anger and five smiles: three each
    drawn = stage.train.expression[items[~photos[items]]]
    expected = stage.data.items_an_epoch["drawn"]["expression"]
    assert (
        int((drawn != -100).sum())
        == expected
        == int((stage.train.expression[~photos] != -100).sum())
    )
    counts = drawn[drawn != -100].bincount()
    assert counts[counts > 0].max() - counts[counts > 0].min() <= 1


UNITS = (1, 4, 10, 12, 25, 26)


@pytest.mark.parametrize(
    ("intensity", "talks"),
    [
        ([0.0, 0.0, 0.10, 0.0, 0.5, 0.1], True),  # 10 is at most a quarter of 25, and 0.05 more
        ([0.0, 0.0, 0.20, 0.0, 0.5, 0.1], False),  # a raised lip
        ([0.0, 0.0, 0.00, 0.0, 0.0, 0.3], True),  # a dropped jaw
        ([0.0, 0.0, 0.00, 0.0, 0.1, 0.1], False),  # lips nearly closed
        ([0.0, 0.06, 0.0, 0.0, 0.5, 0.1], False),  # a frown
        ([0.0, 0.0, 0.00, 0.2, 0.5, 0.1], False),  # a smile
        ([np.nan, 0.0, 0.0, 0.0, 0.5, 0.1], False),  # brows unknown
        ([0.0, 0.0, np.nan, 0.0, 0.5, np.nan], True),
    ],
)
def test_a_face_that_shows_only_parted_lips_talks(intensity, talks):
    assert neutral_talkers(torch.tensor([intensity]), UNITS).tolist() == [talks]


def test_without_brows_among_the_units_nobody_is_said_to_talk():
    assert neutral_talkers(torch.tensor([[0.0, 0.5]]), (12, 25)).tolist() == [False]


def test_talkers_of_the_named_sources_alone_become_neutral_and_calm():
    rows = drawn_faces(4, seed=0, size=32).with_format("pandas")[:].drop(columns="image")
    units = [column for column in rows.columns if column.startswith("au")]
    rows[units] = 0.0
    rows["au25"] = 0.4
    rows["expression"], rows["valence"], rows["arousal"] = (
        [-100, -100, 3, -100],
        [np.nan, 0.3, 0.1, np.nan],
        np.nan,
    )
    rows["source"] = ["warp", "warp", "warp", "photo"]
    given = drawn_faces(4, seed=0, size=32)
    for name in ("expression", "valence", "arousal", "source", *units):
        given = given.remove_columns(name).add_column(name, rows[name].tolist())
    frames = FrameDataset(given)
    before = frames.fingerprint()
    frames.label_talkers(["warp"])
    assert frames.expression.tolist() == [0, 0, 3, -100]
    assert frames.valence_arousal[:2].tolist() == [[0.0, 0.0], [pytest.approx(0.3), 0.0]]
    assert frames.valence_arousal[3].isnan().all()
    assert frames.talkers == 2
    assert frames.fingerprint() != before


def test_talkers_of_an_unknown_source_are_refused():
    words = [
        *TINY,
        "--data",
        "drawn",
        "--items",
        "8",
        "--output",
        "unused",
        "--neutral_talkers",
        "photos",
    ]
    with pytest.raises(
        ValueError, match="--neutral_talkers: no training row is of photos; sources are drawn"
    ):
        mma_stage(parse_arguments(words))


def test_labels_of_a_part_are_its_average():
    rows = FrameDataset(drawn_faces(30, seed=0, size=32))
    rows.sources = ["a"] * 20 + ["b"] * 10
    rows.expression = torch.tensor([0] * 5 + [-100] * 15 + [3] * 10)
    # 15 of a's 20 rows, of which a quarter have an expression: 3.75.
    drawn = items_an_epoch(rows, corpus_draws(rows.sources, rows.expression, "corpora"))
    assert [drawn[name]["images"] for name in "ab"] == [15, 15]
    assert [drawn[name]["expression"] for name in "ab"] == [4, 15]


# Supervision -------------------------------------------------------------------------------------------------------


@pytest.fixture
def rows():
    return FrameDataset(drawn_faces(12, seed=3, size=32))


def test_a_task_that_nothing_labels_is_told_with_numbers(rows, caplog):
    caplog.set_level(logging.WARNING, logger="mma_mrnnet")
    check_supervision(rows, ACTION_UNITS)
    assert not caplog.text
    rows.valence_arousal[:] = float("nan")
    rows.expression[:4], rows.expression[4:] = 2, -100
    rows.intensity[:] = 0.5
    check_supervision(rows, ACTION_UNITS)
    assert (
        "no training row has a label of valence_arousal; labelled of 12 rows: {'valence_arousal': 0"
        in caplog.text
    )
    assert "'expression': 4, 'action_units': 12}" in caplog.text


def test_a_corpus_without_any_label_is_refused(rows):
    rows.sources = ["a"] * 9 + ["b"] * 3
    rows.valence_arousal[9:], rows.intensity[9:], rows.expression[9:] = (
        float("nan"),
        float("nan"),
        -100,
    )
    with pytest.raises(ValueError, match="none of the 3 training rows of b has a label"):
        check_supervision(rows, ACTION_UNITS)


def test_a_unit_that_nothing_could_teach_is_refused(two_corpora, rows):
    rows.intensity = torch.cat([rows.intensity, torch.full((12, 1), float("nan"))], 1)
    with pytest.raises(
        ValueError, match=r"no training row has a label of \[99\], and the prior does not know them"
    ):
        check_supervision(rows, (*ACTION_UNITS, 99))
    rows.intensity[3, -1] = 0.0
    check_supervision(rows, (*ACTION_UNITS, 99))


# A choice of units -------------------------------------------------------------------------------------------------


def test_drawn_faces_have_no_other_units():
    with pytest.raises(ValueError, match=r"--action_units \[14\]: --data drawn has no such units"):
        mma_stage(arguments("drawn", action_units=[12, 14]))


def test_a_corpus_has_the_columns_of_the_units_that_are_asked_for(two_corpora):
    photos = two_corpora.split(",")[1]
    splits = load_frames(photos, (2, 12, 14)).splits
    assert [name for name in splits["train"].features if name.startswith("au")] == [
        "au02",
        "au12",
        "au14",
    ]
    rows = FrameDataset(splits["train"], (2, 12, 14))
    assert rows.intensity[6:].nan_to_num(-1).tolist() == [[-1, 1, 0], [-1, 0, 1]]
    with pytest.raises(ValueError, match=r"train-0.parquet: columns \['au14'\] are missing"):
        load_frames(two_corpora, (2, 12, 14))


def test_a_choice_of_units_runs_from_training_to_stage_2(two_corpora, tmp_path):
    words = [
        "--data",
        two_corpora.split(",")[1],
        "--action_units",
        "2",
        "12",
        "14",
        "--co_annotation",
        "hard",
    ]
    assert main([*TINY, *words, "--output", str(tmp_path / "run")]) == 0
    model = MMAModel.from_pretrained(tmp_path / "run/model")
    assert model.config.action_units == [2, 12, 14]
    assert model.config.supervised_action_units == [12, 14]
    assert model.config.co_annotation == "hard"
    assert model.action_unit_head.out_features == 3
    stage2 = MMAMRNNetForIntensity.from_mma_pretrained(tmp_path / "run/model", num_frames=4)
    assert stage2(affect=torch.rand(2, 4, 2 + 7 + 3)).intensities.shape == (2, 7)


def test_simulated_clips_are_refused_for_an_extractor_with_other_units(
    two_corpora, tmp_path, capsys
):
    words = ["--data", two_corpora.split(",")[1], "--action_units", "12", "14", "--epochs", "1"]
    assert main([*TINY, *words, "--output", str(tmp_path / "run")]) == 0
    stage2 = [
        "--stage",
        "mrnn",
        "--data",
        "simulated",
        "--mma",
        str(tmp_path / "run/model"),
        "--clips",
        "9",
        "9",
        "9",
    ]
    assert main([*stage2, "--output", str(tmp_path / "clips")]) == 1
    assert "--mma has [12, 14]" in capsys.readouterr().err


UNITS_OF_NO_LABEL = [f"AU{unit:02d}" for unit in ACTION_UNITS]


@pytest.mark.parametrize(
    ("labelled", "settings", "untrained"),
    [
        ("everything", {}, []),
        ("expression", {}, ["valence", "arousal"]),  # matching teaches the units
        (
            "expression",
            {"distribution_matching": "off"},
            ["valence", "arousal", *UNITS_OF_NO_LABEL],
        ),
        (
            "expression",
            {"distribution_matching": "off", "co_annotation": "hard"},
            ["valence", "arousal"],
        ),
        ("unit 12", {}, ["valence", "arousal"]),
        ("unit 12", {"distribution_matching": "off"}, "all but AU12"),
        ("valence", {}, "all but valence and arousal"),
    ],
)
def test_outputs_that_nothing_teaches_are_named(rows, labelled, settings, untrained):
    if labelled != "everything":
        if labelled != "valence":
            rows.valence_arousal[:] = float("nan")
        if labelled != "expression":
            rows.expression[:] = -100
        rows.intensity[
            :, [column for column, unit in enumerate(ACTION_UNITS) if labelled != f"unit {unit}"]
        ] = float("nan")
    expressions = ["neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise"]
    if untrained == "all but AU12":
        untrained = [
            "valence",
            "arousal",
            *expressions,
            *(name for name in UNITS_OF_NO_LABEL if name != "AU12"),
        ]
    elif untrained == "all but valence and arousal":
        untrained = [*expressions, *UNITS_OF_NO_LABEL]
    assert untrained_outputs(rows, MMAConfig(**settings)) == untrained


def test_a_card_names_untrained_outputs_and_leaves_the_licence_to_whoever_holds_the_data(tmp_path):
    rows = (
        [("train", "happiness,,")] * 8
        + [("train", "anger,,")] * 8
        + [("validation", "anger,,")] * 2
    )
    photos = write_photos(tmp_path / "photos", rows)
    words = [*TINY, "--data", f"labelled_folder:{photos}", "--distribution_matching", "off"]
    assert main([*words, "--output", str(tmp_path / "run")]) == 0
    config = MMAModel.from_pretrained(tmp_path / "run" / "model").config
    assert config.untrained_outputs == ["valence", "arousal", *UNITS_OF_NO_LABEL]
    assert config.prior_only_action_units == []
    card = ModelCard.load(
        export_checkpoint(tmp_path / "run" / "model", tmp_path / "export") / "README.md"
    )
    assert (card.data.license, card.data.license_name) == ("unknown", None)
    assert "**Untrained:** valence, arousal, AU01" in card.text
    for untrue in (
        "Prior only",
        "not human-coded",
        "by construction",
        "Weights: `apache-2.0`",
    ):
        assert untrue not in card.text


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_a_damaged_image_stops_training_by_name(tmp_path, capsys, workers):
    rows = [("train", "happiness,,")] * 8 + [("validation", "anger,,")] * 2
    photos = write_photos(tmp_path / "photos", rows)
    damaged = photos / "3.png"
    damaged.write_bytes(damaged.read_bytes()[:300])
    words = [*TINY, "--data", f"labelled_folder:{photos}", "--workers", workers]
    assert main([*words, "--output", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("train: ")
    assert f"{damaged}: not an image that can be read" in said
    assert "Traceback" not in said


# A choice of channels to teach -------------------------------------------------------------------------------------


def labelled(rows):
    """How many rows have a label of valence-arousal, of an expression, of units."""
    return [
        int((~rows.valence_arousal.isnan()).any(1).sum()),
        int((rows.expression != -100).sum()),
        int((~rows.intensity.isnan()).any(1).sum()),
    ]


ALL = ["valence_arousal", "expressions", "action_units"]


@pytest.mark.parametrize(
    ("channels", "taught", "score"),
    [
        (ALL, [True, True, True], "mean_of_tasks"),
        (["valence_arousal"], [True, False, False], "valence_arousal_ccc"),
        (["expressions"], [False, True, False], "expression_f1"),
        (["action_units"], [False, False, True], "action_unit_correlation"),
        (["valence_arousal", "expressions"], [True, True, False], "expression_f1"),
        (["valence_arousal", "action_units"], [True, False, True], "action_unit_correlation"),
    ],
)
def test_labels_of_other_channels_are_hidden_from_training_alone(channels, taught, score, caplog):
    caplog.set_level(logging.WARNING, logger="mma_mrnnet")
    whole = FrameDataset(drawn_faces(40, seed=0, size=32))
    stage = mma_stage(arguments("drawn", items=40, channels=channels, distribution_matching="off"))
    shown = [count if seen else 0 for count, seen in zip(labelled(whole), taught, strict=True)]
    assert labelled(stage.train) == shown
    assert min(labelled(stage.validation)) > 0
    assert stage.score_name == score
    assert "no training row has a label of" not in caplog.text
    config = stage.model.config
    assert config.supervised_action_units == (list(ACTION_UNITS) if taught[2] else [])
    untrained = [] if taught[0] else ["valence", "arousal"]
    untrained += (
        []
        if taught[1]
        else ["neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise"]
    )
    assert config.untrained_outputs == untrained + ([] if taught[2] else UNITS_OF_NO_LABEL)
    drawn = stage.data.items_an_epoch["drawn"]
    assert [drawn[kind] for kind in ("valence_arousal", "expression", "action_units")] == shown


def test_matching_still_teaches_hidden_units_through_the_prior():
    config = mma_stage(arguments("drawn", items=40, channels=["expressions"])).model.config
    assert config.untrained_outputs == ["valence", "arousal"]
    assert config.prior_only_action_units == list(ACTION_UNITS)


def test_the_user_may_monitor_what_is_not_taught():
    stage = mma_stage(
        arguments("drawn", items=20, channels=["expressions"], monitor="valence_arousal_ccc")
    )
    assert stage.score_name == "valence_arousal_ccc"


def test_channels_that_no_row_can_teach_are_refused(rows):
    rows.intensity[:], rows.valence_arousal[:, 1] = float("nan"), float("nan")
    rows.expression[:] = 1
    with pytest.raises(
        ValueError, match="--channels action_units: no training row has such a label; labelled are"
    ):
        check_supervision(rows, ACTION_UNITS, ["action_units"])
    check_supervision(
        rows, (*ACTION_UNITS, 99), ["expressions"]
    )  # a unit that nothing teaches is no matter then
    with pytest.raises(ValueError, match="--channels must be one or more of"):
        arguments("drawn", channels=["expressions", "valence_arousal"])


def test_a_fingerprint_tells_hidden_labels(rows):
    before = rows.fingerprint()
    rows.keep_labels(["valence_arousal", "expressions", "action_units"])
    assert rows.fingerprint() == before
    rows.keep_labels(["expressions"])
    assert rows.fingerprint() != before


# Faces with one kind of label each ---------------------------------------------------------------------------------

KINDS = ["drawn-valence-arousal", "drawn-expressions", "drawn-action-units"]


def test_each_partial_face_has_one_kind_of_label_in_turn_and_a_source_that_says_it():
    rows = FrameDataset(drawn_faces(31, seed=0, size=32, one_kind=True))
    assert rows.sources == [KINDS[number % 3] for number in range(31)]
    for number in range(31):
        has = [
            not rows.valence_arousal[number].isnan().any(),
            rows.expression[number] != -100,
            not rows.intensity[number].isnan().any(),
        ]
        assert has == [number % 3 == kind for kind in range(3)]
    assert labelled(rows) == [11, 10, 10]


def test_partial_faces_are_the_faces_that_are_drawn_otherwise():
    partial, whole = (
        drawn_faces(60, seed=0, size=32, one_kind=one_kind) for one_kind in (True, False)
    )
    same = [one == other for one, other in zip(partial["image"], whole["image"], strict=True)]
    assert all(same[2::3])
    # Two in five of the other rows would show random units.
    assert 16 <= sum(same[0::3] + same[1::3]) <= 32


def test_partial_training_validates_on_all_labels():
    partial = mma_stage(arguments("drawn:partial", items=40, balance="corpora"))
    whole = mma_stage(arguments("drawn", items=40))
    assert labelled(partial.train) == [14, 13, 13]
    assert partial.validation.fingerprint() == whole.validation.fingerprint()
    assert set(partial.validation.sources) == {"drawn"}
    assert partial.data.data == "drawn faces, one kind of label each"
    assert {name: row["images"] for name, row in partial.data.items_an_epoch.items()} == {
        "drawn-action-units": 14,
        "drawn-expressions": 13,
        "drawn-valence-arousal": 13,
    }
    assert (
        partial.model.config.untrained_outputs,
        partial.model.config.prior_only_action_units,
    ) == ([], [])


def test_a_single_task_on_partial_faces_keeps_the_rows_of_the_others():
    stage = mma_stage(arguments("drawn:partial", items=30, channels=["expressions"]))
    assert (len(stage.train), labelled(stage.train)) == (30, [0, 10, 0])


def test_a_network_of_one_task_trains_on_batches_without_a_label_and_is_exported(tmp_path):
    words = [
        "--data",
        "drawn:partial",
        "--items",
        "30",
        "--batch_size",
        "1",
        "--epochs",
        "1",
        "--channels",
    ]
    words += [
        "valence_arousal",
        "--distribution_matching",
        "off",
        "--output",
        str(tmp_path / "run"),
    ]
    assert main([*TINY, *words]) == 0
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["training"]["selected_by"] == "valence_arousal_ccc"
    assert "--channels valence_arousal" in results["command"]
    card = ModelCard.load(
        export_checkpoint(tmp_path / "run" / "model", tmp_path / "export") / "README.md"
    )
    assert card.data.license == "apache-2.0"
    assert "**Untrained:** neutral, anger," in card.text
    stage2 = MMAMRNNetForIntensity.from_mma_pretrained(
        tmp_path / "run" / "model", channels=["valence_arousal"]
    )
    assert not set(stage2.config.untrained_outputs) & set(stage2.config.gru_input_names)


def test_a_named_pipe_counts_as_a_missing_image(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.png")  # reading it would wait for ever
    names = ("a.png", "pipe.png", "gone.png")
    found = has_file([f"{tmp_path.as_posix()}/{name}" for name in names])
    assert found.tolist() == [True, False, False]
