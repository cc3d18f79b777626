"""What a card says: metadata that huggingface_hub reads back, tables with intervals, energy, limits, citations."""

import json
import re
import shutil
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results

from mma_mrnnet.hub import cards
from mma_mrnnet.hub.cards import (
    RESULT_FILES,
    CheckpointResults,
    evaluated_macro_f1,
    model_card,
    model_index,
    training_energy,
)
from mma_mrnnet.hub.checkpoints import load_pretrained, pretrained_folder, weights_digest
from mma_mrnnet.model.labels import EXPRESSIONS
from mma_mrnnet.results import Provenance, SourceScores, read_results

NOTHING = {"value": None, "low": None, "high": None}


def measured(value, spread=0.05):
    return {"value": value, "low": round(value - spread, 3), "high": round(value + spread, 3)}


def evaluated(correlation, accuracy):
    """One source's part of `results_evaluation.json`."""
    units = {
        "AU12": {
            "correlation": measured(correlation),
            "f1": measured(0.7),
            "annotated": 40,
            "present": 11,
            "predicted": 9,
        },
        "AU09": {
            "correlation": NOTHING,
            "f1": NOTHING,
            "annotated": 0,
            "present": 0,
            "predicted": 0,
        },
    }
    return {
        "images": 40,
        "people": 25,
        "action_units": units,
        "mean_action_unit_correlation": measured(correlation),
        "mean_action_unit_f1": measured(0.6),
        "mean_correlation_of_common_units": measured(correlation + 0.1),
        "expression": {
            "images": 30,
            "macro_f1": measured(0.9),
            "balanced_accuracy": measured(0.88),
            "confusion": [[20, 0], [1, 9]],
            "names": ["neutral", "happiness"],
        },
        "smiling_against_neutral": {
            "smiling": 10,
            "neutral": 20,
            "balanced_accuracy": measured(accuracy, 0.02),
            "auc": 0.97,
        },
        "valence_arousal": {"images": 0, "valence": NOTHING, "arousal": NOTHING},
        "calibration": {"expression_ece": 0.03, "expression_brier": 0.1, "action_unit_ece": 0.04},
    }


def calm(correlation):
    """A source where everybody is neutral, and nothing else is labelled."""
    row = evaluated(correlation, 0.5)
    row["expression"]["confusion"] = [[30, 0], [0, 0]]
    row["action_units"]["AU06"] = {
        "correlation": measured(0.2),
        "f1": NOTHING,
        "annotated": 40,
        "present": 3,
        "predicted": 2,
    }
    return {
        **row,
        "smiling_against_neutral": {
            "smiling": 0,
            "neutral": 30,
            "balanced_accuracy": NOTHING,
            "auc": None,
        },
    }


def extractor(parameters, milliseconds):
    row = {"name": "some", "parameters": parameters, "megabytes": 11.25, "processor": "one core"}
    return {**row, "cpu_ms_a_face": milliseconds, "threads": 1}


EVALUATION = {
    "command": "mma-mrnnet evaluate",
    "model": extractor(2_800_000, 9.5),
    "data": {
        "data": "faces",
        "split": "validation",
        "images": 80,
        "people": 50,
        "label_origin": None,
    },
    "sources": {"london": evaluated(0.71, 0.98), "congress": calm(0.55)},
    "neutral_talkers": {
        "warp": {"images": 75, "mean_expression": {"neutral": 0.61, "surprise": 0.24}},
        "render": {"images": 0, "mean_expression": {"neutral": None, "surprise": None}},
    },
    "invariance": {
        "mirrored": {
            "london": {
                "affect_mean_difference": 0.0123,
                "action_unit_correlation_change": -0.004,
                "expression_agreement": 0.95,
            }
        }
    },
    "against": {
        "model": {
            "name": "shipped",
            "parameters": 2_805_562,
            "megabytes": 11.2,
            "cpu_ms_a_face": 20.0,
            "threads": 1,
            "processor": "one core",
        },
        "sources": {"london": evaluated(0.52, 0.9)},
    },
}


@pytest.fixture(scope="module")
def shipped():
    return load_pretrained()[0]


@pytest.fixture
def folder(tmp_path):
    """The shipped checkpoint's results, with an evaluation beside them."""
    for path in pretrained_folder().iterdir():
        if path.suffix == ".json" and path.name != "results_evaluation.json":
            shutil.copy(path, tmp_path)
    return tmp_path


def with_evaluation(folder):
    (folder / "results_evaluation.json").write_text(json.dumps(EVALUATION))
    return folder


def card_of(shipped, folder):
    return ModelCard(model_card(shipped, folder))


# Metadata ----------------------------------------------------------------------------------------------------------


def test_the_shipped_cards_results_are_read_back_by_huggingface_hub(shipped, folder):
    card = card_of(shipped, folder)
    stage1, stage2 = (
        json.loads((folder / f"results_{stage}.json").read_text()) for stage in ("mma", "mrnn")
    )
    assert card.data.model_name == "mma-mrnnet"
    found = {(row.dataset_config, row.metric_type): row for row in card.data.eval_results}
    large = {
        source: row
        for source, row in stage1["validation"].items()
        if row["images"] >= 30 and source != "all"
    }
    assert ("canada", "pearsonr") not in found  # five images
    assert ("all", "pearsonr") not in found  # sources put together
    for source, row in large.items():
        assert found[source, "pearsonr"].metric_value == row["mean_action_unit_correlation"]
        assert found[source, "pearsonr"].dataset_type == "labelled-crops"
    for source, row in large.items():  # an F1 only where two expressions or more are labelled
        labelled = [counts for counts in row["expression_confusion_rows_are_labels"] if sum(counts)]
        assert ((source, "f1") in found) == (len(labelled) > 1)
    assert found["warp", "f1"].metric_value == stage1["validation"]["warp"]["expression_macro_f1"]
    simulated = found[None, "pearsonr"]
    assert (simulated.dataset_type, simulated.dataset_split) == ("simulated", "test")
    assert simulated.metric_value == stage2["test"]["reactions"]["mean_pearson"]
    assert "simulated" in simulated.metric_name


def test_the_model_index_has_what_the_hub_asks_for_and_calls_nothing_verified(shipped, folder):
    (entry,) = card_of(shipped, folder).data.to_dict()["model-index"]
    assert entry["name"] == "mma-mrnnet"
    assert entry["results"]
    for result in entry["results"]:
        assert result["task"]["type"] in ("image-classification", "video-classification")
        assert result["dataset"]["type"]
        assert result["dataset"]["name"]
        for metric in result["metrics"]:
            assert metric["type"] in ("pearsonr", "f1")
            assert isinstance(metric["value"], float)
            assert "verified" not in metric
            assert "verifyToken" not in metric
    assert "co2_eq_emissions" not in card_of(shipped, folder).data.to_dict()  # nobody measured it


def test_an_evaluation_replaces_the_trainings_own_scores_in_the_metadata(shipped, folder):
    card = card_of(shipped, with_evaluation(folder))
    found = {
        (row.dataset_config, row.metric_type): row.metric_value for row in card.data.eval_results
    }
    stage2 = json.loads((folder / "results_mrnn.json").read_text())["test"]["reactions"][
        "mean_pearson"
    ]
    assert found == {
        ("london", "pearsonr"): 0.71,
        ("london", "f1"): 0.9,
        ("congress", "pearsonr"): 0.55,
        (None, "pearsonr"): stage2,
    }


def test_results_survive_the_way_through_yaml(folder):
    stage1 = read_results(folder / "results_mma.json")
    stage1.provenance = [Provenance("drawn", "apache-2.0", made_up=True)]
    everything = replace(
        stage1.validation["all"],
        images=40,
        mean_action_unit_correlation=0.25,
        expression_macro_f1=None,
        expression_confusion_rows_are_labels=[[0, 0], [0, 0]],
    )
    stage1.validation = {"all": everything}
    stage2 = read_results(folder / "results_mrnn.json")
    stage2.test = None
    stage2.validation.reactions.mean_pearson = 0.5
    results = CheckpointResults(stage1, stage2)
    index = model_index("tabular-regression", results, simulated=False)
    data = ModelCardData(model_name="x", eval_results=index)
    assert model_index_to_eval_results(data.to_dict()["model-index"]) == ("x", index)
    assert [(row.dataset_type, row.dataset_split, row.metric_value) for row in index] == [
        ("made-up-faces", "validation", 0.25),
        ("labelled-clips", "validation", 0.5),
    ]
    stage2.validation.reactions.mean_pearson = None
    empty = CheckpointResults(stage2=stage2)
    assert model_index("tabular-regression", empty, simulated=False) == []


def test_the_headline_score_is_of_the_clips_that_the_model_predicted(folder):
    stage2 = read_results(folder / "results_mrnn.json")
    stage2.test.predicted_as_training_mean = 3
    stage2.test.reactions_with_face = replace(stage2.test.reactions, mean_pearson=0.017)
    (row,) = model_index("x", CheckpointResults(stage2=stage2), simulated=False)
    assert row.metric_value == 0.017


def test_names_of_users_cannot_break_a_table_or_bring_html(shipped, folder):
    path = folder / "results_mma.json"
    results = json.loads(path.read_text())
    results["provenance"][0]["name"] = "a|b\n<script>`x`"
    results["provenance"][0]["attribution"] = "Somebody\n# Heading <script> <https://doi.org/1>"
    results["command"] = "train.py\n```\n# Heading"
    path.write_text(json.dumps(results))
    text = card_of(shipped, folder).text
    assert "| a\\|b &lt;script>'x' | cc-by-4.0 |" in text
    assert ": Somebody # Heading &lt;script> <https://doi.org/1>" in text
    assert "<script>" not in text
    assert "\n# Heading" not in text
    assert text.count("```") % 2 == 0


def test_a_macro_f1_over_one_expression_is_none():
    assert evaluated_macro_f1(SourceScores.from_json(evaluated(0.5, 0.5))) == 0.9
    assert evaluated_macro_f1(SourceScores.from_json(calm(0.5))) is None


@pytest.mark.parametrize("name", RESULT_FILES)
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"stage": "mma"}', "[" * 100_000])
def test_a_damaged_result_file_is_named_in_one_line(shipped, folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=name) as error:
        model_card(shipped, folder)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("results_evaluation.json", "model", {}),
        ("results_evaluation.json", "sources", {"london": {"images": 30}}),
        ("results_ceiling.json", "reported_affect", {}),
        ("results_mrnn.json", "calibration", [1]),
        ("results_ceiling.json", "true_affect", {"mean": 10**400}),
        ("results_mma.json", "validation", {"all": None}),
    ],
)
def test_a_result_file_that_holds_something_else_is_named_with_the_place(
    shipped, folder, name, place, value
):
    content = json.loads((with_evaluation(folder) / name).read_text())
    (folder / name).write_text(json.dumps({**content, place: value}))
    with pytest.raises(ValueError, match=rf"{name}\.{place}"):
        model_card(shipped, folder)


# Text --------------------------------------------------------------------------------------------------------------


def test_tables_of_an_evaluation_have_intervals_and_the_first_checkpoint(shipped, folder):
    text = card_of(shipped, with_evaluation(folder)).text
    expressions, smiles = "0.90 [0.85, 0.95] (30)", "0.980 [0.960, 1.000]"
    assert (
        f"| london | 40 (25) | 0.71 [0.66, 0.76] | 0.81 [0.76, 0.86] | {expressions} | {smiles} | – |"
        in text
    )
    assert "| congress | 40 (25) | 0.55 [0.50, 0.60] | 0.65 [0.60, 0.70] | – | – | – |" in text
    assert "| AU12 | 0.71 [0.66, 0.76] (11) | 0.55 [0.50, 0.60] (11) |" in text
    assert "| AU09 |" not in text  # a label nowhere
    assert "| AU06 | no labels | 0.20 [0.15, 0.25] (3) |" in text
    assert "| london | 0.52 [0.47, 0.57] → 0.71 [0.66, 0.76] |" in text
    assert "| 0.900 [0.880, 0.920] → 0.980 [0.960, 1.000] |" in text
    assert (
        "| congress | 0.5"
        not in text.split("`shipped` against this one")[1].split("Correlation of each unit")[0]
    )
    assert "and do nothing else: warp (75 images) neutral 0.61, surprise 0.24." in text
    assert "takes 9.5 ms of one core (one core)" in text
    assert "valence / arousal CCC (images)" not in text  # the training's own table


@pytest.mark.parametrize("prepare", [lambda folder: folder, with_evaluation])
def test_no_card_has_holes(shipped, folder, prepare):
    text = card_of(shipped, prepare(folder)).text
    assert not re.search(r"\bNone\b|\{%|%\}|Undefined|\bnan\b|<!--", text)
    assert text.count("```") % 2 == 0
    assert "\n\n\n\n" not in text


CROPS = ("public-domain", "cc-by-4.0", "mit")


@pytest.mark.parametrize(
    ("stage1", "stage2", "metadata", "words"),
    [
        (["public-domain"], ["apache-2.0"], ("apache-2.0", None), "`apache-2.0`"),
        (CROPS, ["apache-2.0"], ("cc-by-4.0", None), "keep the attributions above"),
        (
            [*CROPS, "research-only"],
            ["apache-2.0"],
            ("other", "terms-of-the-training-data"),
            "source3 may be used for research alone",
        ),
        (CROPS, ["research-only"], ("other", "terms-of-the-training-data"), "research alone"),
        ([*CROPS, "unknown"], ["apache-2.0"], ("unknown", None), "licence of source3 is not"),
        (None, ["apache-2.0"], ("unknown", None), "(results_mma.json) is not recorded"),
        (CROPS, None, ("unknown", None), "(results_mrnn.json) is not recorded"),
    ],
)
def test_the_licence_of_weights_is_that_of_their_most_restrictive_source(
    shipped, folder, stage1, stage2, metadata, words
):
    for stage, licences in (("mma", stage1), ("mrnn", stage2)):
        path = folder / f"results_{stage}.json"
        results = json.loads(path.read_text())
        del results["provenance"]
        if licences is not None:
            results["provenance"] = [
                Provenance(f"source{number}", licence).to_json()
                for number, licence in enumerate(licences)
            ]
        path.write_text(json.dumps(results))
    card = card_of(shipped, folder)
    assert (card.data.license, card.data.license_name) == metadata
    assert words in " ".join(card.text.split())


def test_the_shipped_weights_are_cc_by_and_name_every_source(shipped, folder):
    card = card_of(shipped, folder)
    assert card.data.license == "cc-by-4.0"
    assert "| render | mit | made | read off by another model |" in card.text
    assert "| congress | public-domain | of people | read off by another model |" in card.text


def test_a_card_says_what_is_forbidden_what_it_cost_and_how_to_cite(shipped, folder):
    text = card_of(shipped, folder).text
    for words in (
        "What it is for.",
        "What it must not be used for.",
        "Article 5(1)(f)",
        "medical or safety reasons",
        "Article 50(3)",
        "GDPR",
        "not legal advice",
        "Environmental cost",
        "Emissions are not stated",
        "Calm talkers and crying faces are easily misread.",
        "docs/results.md",
        "10.6084/m9.figshare.5047666.v5",
        "10.6084/m9.figshare.4220517.v1",
        "Copyright (c) 2020 USC Institute for Creative Technologies, MIT",
        "@article{kollias2023mmamrnnet,",
        "@software{mma_mrnnet,",
        "author  = { {The mma\\_mrnnet authors} },",
    ):
        assert words in " ".join(text.split()) or words in text, words


def results(hardware, **training):
    """Results of a run of an hour and a half on two threads a process."""
    run = read_results(pretrained_folder() / "results_mma.json")
    run.arguments["threads"], run.earlier = 2, []
    run.training = replace(run.training, seconds=5400.0, hardware=hardware, **training)
    return run


def test_energy_is_core_hours_times_an_assumed_power():
    row = training_energy(results("3 CPU process(es), 2 thread(s) each", processes=3))
    assert (row.hours, row.core_hours) == (1.5, 9.0)  # 1.5 h x 3 processes x 2 threads
    assert row.kilowatt_hours == pytest.approx(0.09)  # 9 h x 10 W


def test_no_energy_is_worked_out_for_a_training_on_other_devices():
    run = results("1 CUDA process(es), 2 thread(s) each")
    assert training_energy(run).kilowatt_hours is None


def test_a_card_of_such_a_training_names_hours_alone(shipped, folder):
    for name in ("results_mma.json", "results_mrnn.json"):
        content = json.loads((folder / name).read_text())
        content["training"]["hardware"] = "1 CUDA process(es), 1 thread(s) each"
        (folder / name).write_text(json.dumps(content))
    text = card_of(shipped, folder).text
    assert "hours on 1 CUDA process(es), 1 thread(s) each." in text
    assert "kWh" not in text
    assert "W for a busy core" not in text


def test_the_citation_leaves_an_unknown_version_out(shipped, folder, monkeypatch):
    assert "version = {0.1.0}" in card_of(shipped, folder).text

    def missing(name):
        raise cards.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(cards.metadata, "version", missing)
    text = card_of(shipped, folder).text
    assert "version =" not in text
    assert "@software{mma_mrnnet," in text


def test_an_evaluation_of_other_weights_is_left_out(shipped, folder):
    with_evaluation(folder)
    own = weights_digest(shipped.mma)
    for digest, used in ((own, True), ("0" * 64, False)):
        evaluation = {**EVALUATION, "model": {**EVALUATION["model"], "weights": digest}}
        (folder / "results_evaluation.json").write_text(json.dumps(evaluation))
        assert ("0.71 [0.66, 0.76]" in card_of(shipped, folder).text) == used


def test_an_expression_without_a_labelled_real_face_is_called_not_usable(shipped, folder):
    # Validation of the two sources: `photos` shows neutral and happiness, `bent` everything.
    results = json.loads((folder / "results_mma.json").read_text("utf-8"))
    scores = results["validation"]["all"]
    some, every = [[0] * 7 for _ in range(7)], [[1] * 7 for _ in range(7)]
    some[EXPRESSIONS.index("neutral")] = some[EXPRESSIONS.index("happiness")] = [1] * 7
    results["validation"] = {
        "all": scores,
        "photos": {**scores, "expression_confusion_rows_are_labels": some},
        "bent": {**scores, "expression_confusion_rows_are_labels": every},
    }
    results["provenance"] = [
        {"name": "photos", "licence": "mit", "made_up": False, "labels": "pseudo"},
        {"name": "bent", "licence": "mit", "made_up": True, "labels": "pseudo"},
    ]
    (folder / "results_mma.json").write_text(json.dumps(results), "utf-8")
    found = "measures them:** anger, disgust, fear, sadness, surprise."
    assert found in card_of(shipped, folder).text
    results["provenance"][1]["made_up"] = False
    (folder / "results_mma.json").write_text(json.dumps(results), "utf-8")
    assert "measures them" not in card_of(shipped, folder).text


def test_a_card_shows_the_runs_that_made_the_starting_weights(shipped, folder):
    results = json.loads((folder / "results_mma.json").read_text("utf-8"))
    results["earlier"] = [{"command": "train.py --output first", "seconds": 600.0}]
    results["training"]["seconds"] = 1200.0
    (folder / "results_mma.json").write_text(json.dumps(results), "utf-8")
    text = card_of(shipped, folder).text
    assert text.index("train.py --output first") < text.index(results["command"])
    assert "after 10 minutes of earlier runs" in text
    assert "Stage 1 took 0.5 hours" in text
