"""Result files as typed records: reading gives what was written, and faults are named by place."""

import copy
import json
from pathlib import Path

import pytest

from mma_mrnnet.results import (
    FORMAT,
    ClipScores,
    LabelFacts,
    MMAResults,
    MRNNResults,
    Provenance,
    ResultsError,
    read_provenance,
    read_results,
)

PRETRAINED = Path(__file__).resolve().parents[1] / "mma_mrnnet" / "pretrained"
FILES = {"mma": PRETRAINED / "results_mma.json", "mrnn": PRETRAINED / "results_mrnn.json"}


@pytest.fixture(params=["mma", "mrnn"])
def written(request):
    """The content of a file that an earlier version wrote."""
    return json.loads(FILES[request.param].read_text("utf-8"))


def write(folder, content):
    path = folder / "results.json"
    path.write_text(json.dumps(content), "utf-8")
    return path


@pytest.mark.parametrize(("stage", "kind"), [("mma", MMAResults), ("mrnn", MRNNResults)])
def test_the_shipped_files_are_read_as_their_stage(stage, kind):
    results = read_results(FILES[stage])
    assert type(results) is kind
    assert results.stage == stage
    assert FILES[stage].name == kind.name_of_file


def test_what_is_read_is_written_again_key_by_key(written, tmp_path):
    again = read_results(write(tmp_path, written)).to_json()
    assert again.pop("format") == FORMAT
    assert again == {name: value for name, value in written.items() if name != "format"}


def test_files_without_a_format_number_or_a_provenance_are_older_ones(written, tmp_path):
    written.pop("format", None)
    written.pop("provenance", None)
    assert read_results(write(tmp_path, written)).provenance is None
    assert read_provenance(written) == ()


def test_a_provenance_survives_writing_and_reading(written, tmp_path):
    source = Provenance("drawn faces", licence="apache-2.0", made_up=True, labels="constructed")
    results = read_results(write(tmp_path, written))
    results.provenance = [source, Provenance("photos")]
    again = read_results(write(tmp_path, results.to_json()))
    assert again.provenance == [source, Provenance("photos", "unknown")]


def test_a_later_format_is_refused(written, tmp_path):
    with pytest.raises(ResultsError, match=f"reads up to {FORMAT}"):
        read_results(write(tmp_path, {**written, "format": FORMAT + 1}))


def test_a_missing_value_is_named_by_its_place(written, tmp_path):
    del written["training"]["history"][0]["train_loss"]
    with pytest.raises(ResultsError, match=r"training\.history\[0\]\.train_loss: is missing"):
        read_results(write(tmp_path, written))


@pytest.mark.parametrize("value", ["0.5", True, [0.5], {"value": 0.5}])
def test_a_value_of_another_type_is_named_by_its_place(written, tmp_path, value):
    written["training"]["seconds"] = value
    with pytest.raises(ResultsError, match=r"training\.seconds: must be of type float; got"):
        read_results(write(tmp_path, written))


@pytest.mark.parametrize("content", [[], "mma", {}, {"stage": ["mma"]}, {"stage": "other"}])
def test_what_training_did_not_write_is_refused(tmp_path, content):
    with pytest.raises(ResultsError, match="its stage must be mma or mrnn"):
        read_results(write(tmp_path, content))


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "results.json").write_text("{", "utf-8")
    with pytest.raises(ResultsError, match="not a result file that can be read"):
        read_results(tmp_path / "results.json")


def test_keys_that_are_not_known_are_ignored(written, tmp_path):
    more = copy.deepcopy(written)
    more["training"]["weather"] = "rain"
    assert read_results(write(tmp_path, more)) == read_results(write(tmp_path, written))


def test_numbers_that_are_not_defined_are_written_as_null():
    results = read_results(FILES["mrnn"])
    results.validation.reactions.mean_pearson = float("nan")
    assert results.to_json()["validation"]["reactions"]["mean_pearson"] is None


def test_scores_are_rounded_and_arguments_are_not():
    results = read_results(FILES["mrnn"])
    results.arguments["learning_rate"] = 0.00012345678
    results.validation.reactions.mean_pearson = 0.123456
    content = results.to_json()
    assert content["arguments"]["learning_rate"] == 0.00012345678
    assert content["validation"]["reactions"]["mean_pearson"] == 0.1235


def test_the_scores_of_what_the_model_predicted_leave_out_clips_without_a_face():
    scores = read_results(FILES["mrnn"]).validation
    assert scores.of_predicted is scores.reactions  # simulated clips all have a face
    other = copy.deepcopy(scores.reactions)
    scores.reactions_with_face = other
    assert scores.of_predicted is other


def test_kinds_of_quiet_clips_stand_beside_the_other_scores():
    scores = read_results(FILES["mrnn"]).validation
    assert {"neutral", "talking", "grin", "shout"} <= set(scores.quiet)
    assert ClipScores.from_json(scores.to_json()) == scores
    assert "quiet" not in scores.to_json()


def test_what_was_not_recorded_is_not_written():
    assert LabelFacts(labelled=0).to_json() == {"labelled": 0}
