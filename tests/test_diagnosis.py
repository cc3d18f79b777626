"""Each failure signature fires where it should and not a step before; planted failures of real runs are named."""

import copy
import csv
import itertools
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from mma_mrnnet import MMAMRNNetConfig, MMAMRNNetForIntensity
from mma_mrnnet.analysis.diagnosis import SIGNATURES, diagnose, diagnose_files
from mma_mrnnet.analysis.findings import RUN_SIGNATURES, Finding, count_errors_apart
from mma_mrnnet.cli import main as command
from mma_mrnnet.features.records import clip_features
from mma_mrnnet.metrics import rounded
from mma_mrnnet.model.labels import EXPRESSIONS
from mma_mrnnet.model.modeling_mma_mrnnet import IntensityOutput
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import LabelFacts, MMAResults, MRNNResults
from mma_mrnnet.train import main
from mma_mrnnet.training import facts as facts_module
from mma_mrnnet.training.datasets import ClipDataset
from mma_mrnnet.training.facts import describe_inputs, describe_labels, measure_drops

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("settings_kept")


# Results of a healthy run ------------------------------------------------------------------------------------------


def history(*scores, losses=None):
    losses = losses or [0.9 - 0.01 * number for number in range(len(scores))]
    rows = zip(losses, scores, strict=True)
    return [
        {"epoch": epoch, "train_loss": loss, "score": score, "seconds": 1.0, "scores": {}}
        for epoch, (loss, score) in enumerate(rows, 1)
    ]


def training(*scores, **options):
    defined = [-1.0 if score is None else score for score in scores]
    best = defined.index(max(defined)) + 1
    told = {"selected_by": "mean", "seconds": 1.0, "hardware": "a core", "processes": 1}
    return {
        **told,
        "epochs": len(scores),
        "best_epoch": best,
        "history": history(*scores, **options),
    }


def scores(mean=0.4, clips=1000, **pearson):
    others = {"mean_ccc": 0.4, "mean_mae": 0.1, "ccc": {}, "mae": {}, "mean_intensity": {}}
    pearson = {"joy": 0.4, "fear": 0.4, **pearson}
    return {"clips": clips, "mean_pearson": mean, "pearson": pearson, **others}


def labels(**change):
    row = {"labelled": 1000, "mean": 0.5, "deviation": 0.3, "share_at_0": 0.1, "share_at_1": 0.1}
    row |= {"share_of_the_most_frequent": 0.1}
    return {"joy": dict(row), "fear": {**row, **change}}


def outputs(**change):
    row = {
        "mean": 0.5,
        "deviation": 0.1,
        "share_at_0": 0.0,
        "share_at_1": 0.0,
        "least": 0.1,
        "most": 0.9,
        "deviation_of_logits": 0.2,
    }
    return {"joy": dict(row), "fear": {**row, **change}}


def inputs(**drops):
    drops = {"smile": 0.2, "frown": 0.1, **drops}
    row = {"mean": 1.0, "deviation": 0.5, "length_correlation": 0.1}
    channels = {name: {**row, "drop": drop} for name, drop in drops.items()}
    return {"clips": 512, "exchanged_clips": 512, "mean_pearson": 0.4, "channels": channels}


RUN = {"command": "train.py", "parameters": 1, "versions": {}}


def healthy_clips():
    return {
        **RUN,
        "stage": "mrnn",
        "arguments": {"batch_size": 16, "intensity_loss": "pearson"},
        "baselines": {
            "clips": {"ridge": 1000},
            "validation": {"ridge": {"mean_pearson": 0.3, "mean_mae": 0.2}},
            "test": {},
        },
        "data": {
            "data": "clips",
            "train_reaction": 1000,
            "validation_reaction": 1000,
            "test_reaction": 1000,
            "without_face": 0,
        },
        "training": training(0.3, 0.35, 0.4, 0.4),
        "calibration": {"scale": [1.0, 1.0], "shift": [0.0, 0.0], "fitted_on": "validation"},
        "validation": {
            "clips": 1000,
            "reactions": scores(),
            "mean_pearson_by_length": {
                "1-15": {"clips": 0, "mean_pearson": None},
                "16-20": {"clips": 100, "mean_pearson": 0.4},
                "21-30": {"clips": 900, "mean_pearson": 0.4},
            },
        },
        "test": {"clips": 1000, "reactions": scores(), "mean_pearson_by_length": {}},
        "facts": {
            "train": {"clips": 1000, "mean_pearson": 0.45, "pearson": {"joy": 0.45, "fear": 0.45}},
            "labels": {"train": labels(), "validation": labels(), "test": labels()},
            "outputs": {"validation": outputs(), "test": outputs()},
            "inputs": inputs(),
        },
    }


UNIT = {"correlation": 0.6, "f1": 0.5}


def frame_report(images=400, correlation=0.6, f1=0.6):
    confusion = [
        [30 if row == column else 4 for column in range(7)] for row in range(7)
    ]  # 54 a row, 378 in all
    return {
        "images": images,
        "action_units": {
            "AU01": {**UNIT, "annotated": 400, "present": 50, "predicted": 40},
            "AU12": {**UNIT, "annotated": 400, "present": 90, "predicted": 95},
        },
        "mean_action_unit_correlation": correlation,
        "mean_action_unit_f1": 0.5,
        "expression_images": 378,
        "expression_accuracy": 30 / 54,
        "expression_macro_f1": f1,
        "expression_confusion_rows_are_labels": confusion,
        "valence_arousal_images": 400,
        "valence_arousal_ccc": {"valence": 0.6, "arousal": 0.5},
    }


def right_of_54(right):
    return [
        [right if row == column else (54 - right) // 6 for column in range(7)] for row in range(7)
    ]


def healthy_frames():
    return {
        **RUN,
        "stage": "mma",
        "arguments": {"batch_size": 64, "intensity_loss": "pearson"},
        "data": {
            "data": "crops",
            "train": 4000,
            "validation": 400,
            "items_an_epoch": {"a": {"images": 2000}, "b": {"images": 2000}},
        },
        "training": training(0.3, 0.4, 0.401),
        "validation": {
            "all": frame_report(),
            "a": frame_report(200, 0.65),
            "b": frame_report(200, 0.55),
        },
        "facts": {
            "labels": {
                "train": {
                    "images": 4000,
                    "action_units": {
                        name: {"annotated": 4000, "present": 500} for name in ("AU01", "AU12")
                    },
                    "expressions": dict.fromkeys(EXPRESSIONS, 500),
                }
            },
            "learnt_from_the_prior_alone": [],
            "untrained_outputs": [],
        },
    }


HEALTHY = {"mma": healthy_frames, "mrnn": healthy_clips}
KIND = {"mma": MMAResults, "mrnn": MRNNResults}


def find(name, results):
    """What a signature finds in the results of a run."""
    stage = results["stage"]
    return SIGNATURES[stage][name](KIND[stage].from_json(results))


def changed(results, path, value):
    """A copy with another value at a path such as `validation.reactions.clips`; several paths between spaces."""
    results = copy.deepcopy(results)
    paths = path.split()
    for place, new in zip(paths, value if len(paths) > 1 else [value], strict=True):
        *parents, last = place.split(".")
        row = results
        for parent in parents:
            row = row[parent]
        row[last] = new
    return results


@pytest.mark.parametrize("stage", HEALTHY)
def test_a_healthy_run_has_no_finding_and_everything_holds(stage, tmp_path, capsys):
    file = tmp_path / "results.json"
    file.write_text(json.dumps(HEALTHY[stage]()))
    (diagnosis,) = diagnose_files(tmp_path)
    assert (diagnosis.findings, diagnosis.not_recorded) == ([], [])
    assert diagnosis.held == list(SIGNATURES[stage])
    assert command(["diagnose", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{file} (stage {stage}): nothing wrong found"
    assert second == f"  holds: {', '.join(SIGNATURES[stage])}"


# Signatures --------------------------------------------------------------------------------------------------------

LENGTHS = "validation.mean_pearson_by_length.16-20.mean_pearson"
MEAN = "validation.reactions.mean_pearson"
BOTH = "validation.reactions.mean_pearson facts.train.mean_pearson"
UNITS = "validation.all.action_units.AU01."
CONFUSION = "validation.all.expression_confusion_rows_are_labels"
NO_FEAR = [[30 * (row == column) for column in range(7)] for row in range(7)]
NO_FEAR[3] = [30, 0, 0, 0, 0, 0, 0]  # fear, the fourth, is called neutral
ONE_FEAR = [*NO_FEAR[:3], [29, 0, 0, 1, 0, 0, 0], *NO_FEAR[4:]]
FEW_FEAR = [*NO_FEAR[:3], [0, 0, 0, 9, 0, 0, 0], *NO_FEAR[4:]]
ENOUGH_FEAR = [*NO_FEAR[:3], [0, 0, 0, 10, 0, 0, 0], *NO_FEAR[4:]]

CASES = [
    # stage, signature, path, value that fires, near miss, severity, words of the finding
    ("mma", "the loss fell", "training", training(0.3, 0.3, losses=[1, 0.995]), training(0.3, 0.3, losses=[1, 0.98]),
     "problem", "the training loss never fell: 1.000 in epoch 1, 0.995 at best"),
    ("mrnn", "converged", "training", training(0.3, 0.35, 0.36), training(0.3, 0.35, 0.354),
     "note", "the last of 3 epochs is the best and still 0.010 above"),
    ("mrnn", "batches large enough", "arguments.batch_size", 15, 16, "problem", "a correlation over 15 items a step"),
    ("mma", "batches large enough", "arguments.batch_size", 401, 400, "note", "few steps: 9 an epoch"),
    # Of 1,000 clips a correlation of 0 has a standard error of .0316.
    ("mrnn", "every target above 0", MEAN, 0.063, 0.064, "problem", "mean Pearson 0.063 on validation (n = 1,000, standard"),
    ("mrnn", "every target above 0", MEAN, None, 0.1, "problem", "mean Pearson not defined"),
    ("mrnn", "every target above 0", "validation.reactions.pearson.fear", 0.063, 0.064,
     "problem", "on validation (n = 1,000): fear 0.063"),
    ("mrnn", "better than baselines", "baselines.validation.ridge.mean_pearson", 0.44, 0.4,
     "problem", "ridge on summaries of the clips beats the network on validation: mean Pearson 0.440 against 0.400"),
    ("mrnn", "better than baselines", "baselines.validation.ridge.mean_pearson", 0.43, 0.39, "note", "0.430 against"),
    ("mrnn", "no overfitting", BOTH, (0.3, 0.46), (0.3, 0.44), "problem", "0.460 on training clips, 0.300 on valid"),
    # Fisher's z of .6 is .693, of .4 .424: .269 apart, with 103 and 1,003 clips .269 / sqrt(1/100 + 1/1000) = 2.57.
    ("mrnn", "no overfitting", "facts.train.mean_pearson validation.reactions.clips", (0.6, 103), (0.6, 20),
     "problem", "2.6 standard errors apart"),
    # z .546 - .424 = .123, over sqrt(2 / 997) 2.7 standard errors; and .443 - .424 = .4 of them.
    ("mrnn", "validation agrees with test", "test.reactions.mean_pearson", 0.5, 0.43,
     "note", "mean Pearson 0.400 and 0.500 (n = 1,000 and 1,000); validation is higher by standard errors: mean -2.8"),
    # One of several targets has to lie 3 off: z .4 - .26 = .158 is 3.5 of .0448, .4 - .29 = .125 is 2.8.
    ("mrnn", "validation agrees with test", "test.reactions.pearson.fear", 0.26, 0.29, "note", "fear 3.5"),
    # z .424 - .203 = .221 over sqrt(1/97 + 1/897) = .1069: 2.1; z .424 - .224 = .2: 1.87.
    ("mrnn", "all lengths alike", LENGTHS, 0.2, 0.22, "note", "predicted worse, mean Pearson: 16-20 frames (n = 100, others 0.400) 0.200"),
    ("mrnn", "outputs vary", "facts.outputs.validation", outputs(deviation_of_logits=0.0009),
     outputs(deviation_of_logits=0.0011), "problem", "the same for every clip (deviation of the logits): fear 0.0009"),
    ("mrnn", "outputs vary", "facts.outputs.validation", outputs(share_at_1=0.51), outputs(share_at_1=0.49),
     "problem", "saturated outputs (share of clips): fear at 1 51%"),
    ("mrnn", "outputs vary", "facts.outputs.validation facts.labels.validation",
     (outputs(share_at_0=0.8), labels(share_at_0=0.5)), (outputs(share_at_0=0.8), labels(share_at_0=0.6)),
     "problem", "fear at 0 80%"),
    ("mrnn", "calibrated", "calibration.scale", [1.0, 0.001], [1.0, 0.0011], "problem", "constant (slope): fear 0.001"),
    ("mrnn", "calibrated", "calibration.scale", [1.0, 5.0], [1.0, 4.9], "note",
     "steep lines of calibration, fitted on 1,000 clips"),
    ("mrnn", "calibrated", "calibration.scale validation.reactions.clips", ([35.0, 1.0], 14), ([1.0, 1.0], 14),
     "problem", "fitted on 14 clips: these outputs vary far less than their labels, so that noise is stretched (slope): joy 35.0"),
    ("mrnn", "calibrated", "calibration.scale facts.labels.validation", ([1.0, 35.0], labels(labelled=14)),
     ([4.9, 4.9], labels(labelled=14)), "problem", "fitted on 14 clips"),
    ("mrnn", "no input carries the length", "facts.inputs.channels.frown.length_correlation", -0.9, 0.89,
     "problem", "inputs that carry the clip's length (correlation of their mean with it): frown -0.90"),
    ("mrnn", "labels vary", "facts.labels.train", labels(share_of_the_most_frequent=1.0, mean=0.25),
     labels(share_of_the_most_frequent=0.97), "problem", "labels of train that never vary (their value): fear 0.250"),
    ("mrnn", "labels vary", "facts.labels.test", labels(share_of_the_most_frequent=0.98), labels(), "note", "98.0%"),
    ("mrnn", "labels enough", "facts.labels.train", labels(labelled=99), labels(labelled=100),
     "note", "few labelled clips in train (standard error of a correlation 0.10): fear 99"),
    ("mrnn", "labels enough", "facts.labels.validation", {**labels(), "fear": {"labelled": 0}}, labels(),
     "note", "few labelled clips in validation (standard error of a correlation 1.00): fear 0"),
    ("mrnn", "inputs carry something", "facts.inputs.channels.frown", {"mean": 7.0, "deviation": 6e-6, "drop": 0.0},
     {"mean": 7.0, "deviation": 8e-6, "drop": 0.1}, "problem", "never change (deviation over frames): frown 6e-06"),
    ("mrnn", "inputs carry something", "facts.inputs", inputs(brow=-0.0009), inputs(brow=0.0011),
     "note", "1 of 3 inputs carry nothing that the model uses"),
    ("mrnn", "more than one input counts", "facts.inputs", inputs(smile=0.33, frown=0.06),
     inputs(smile=0.33, frown=0.07), "note",
     "exchanging smile among clips takes 0.330 of a mean Pearson of 0.400, any other at most 0.060 (n = 512)"),
    ("mrnn", "more than one input counts", "facts.inputs", inputs(smile=0.33, frown=0), inputs(smile=0.31, frown=0),
     "note", "rests on one input"),
    ("mrnn", "clips have faces", "data.without_face", 334, 333, "note", "10% of the clips could not be used"),
    ("mrnn", "clips have faces", "data.unreadable", 1300, 300, "problem", "unreadable 1,300"),
    # Of 400 images a correlation of 0 has a standard error of .05. Guessing among 7 is right in .143 of each one's 54,
    # and the mean of seven such recalls has a standard error of (.143 * .857 / 54 / 7) ** .5 = .018.
    ("mma", "every task above chance", "validation.all.mean_action_unit_correlation", 0.1, 0.101,
     "problem", "action units' correlation (chance reaches 0.100) 0.100"),
    ("mma", "every task above chance", CONFUSION, right_of_54(6), right_of_54(12), "problem", "mean recall (chance reaches 0.179) 0.111"),
    ("mma", "every task above chance", "validation.all.valence_arousal_ccc", {"valence": 0.6, "arousal": 0.0},
     {"valence": None, "arousal": 0.2}, "problem", "CCC of arousal (chance reaches 0.100) 0.000"),
    ("mma", "every output predicted", UNITS + "predicted", 0, 1, "problem", "never predicted on validation (images that have them): AU01 50"),
    ("mma", "every output predicted", CONFUSION, NO_FEAR, ONE_FEAR, "problem", "(images that have them): fear 30"),
    ("mma", "positive labels enough", "facts.labels.train.expressions.fear", 49, 50, "note", "(images): fear 49"),
    ("mma", "positive labels enough", "facts.labels.train.action_units.AU01", {"annotated": 4000, "present": 0},
     {"annotated": 0, "present": 0}, "note", "(images): AU01 0"),
    ("mma", "scored on enough", CONFUSION, FEW_FEAR, ENOUGH_FEAR, "note", "none with a label: fear 9"),
    ("mma", "scored on enough", UNITS + "present", 9, 10, "note", "none with a label: AU01 9"),
    ("mma", "scored on enough", "validation.all.valence_arousal_images", 9, 10, "note", "valence and arousal 9"),
    ("mma", "every output taught", "facts.untrained_outputs", ["AU11"], [], "problem", "the data taught: AU11"),
    ("mma", "every output taught", "facts.learnt_from_the_prior_alone", ["AU23"], [], "note", "prior alone: AU23"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("stage", "name", "path", "value", "near", "severity", "words"),
    CASES,
    ids=[f"{case[0]}, {case[1]}, {case[2]}" for case in CASES],
)
def test_a_signature_fires_and_a_near_miss_does_not(
    stage, name, path, value, near, severity, words
):
    results = HEALTHY[stage]()
    found = find(name, changed(results, path, value))
    assert [finding.severity for finding in found] == [severity]
    assert words in found[0].what
    assert found[0].numbers
    assert found[0].advice.endswith(".")
    assert find(name, changed(results, path, near)) == []


def test_every_signature_has_a_case():
    assert {
        (stage, name)
        for stage, names in SIGNATURES.items()
        for name in names
        if name not in RUN_SIGNATURES
    } == {(stage, name) for stage, name, *_ in CASES if name not in RUN_SIGNATURES}
    assert set(RUN_SIGNATURES) <= {name for _, name, *_ in CASES}


def test_clips_without_a_face_do_not_count_where_the_model_is_judged():
    results = healthy_clips()
    results["validation"]["reactions_with_face"] = scores(mean=0.0)
    assert find("every target above 0", results)


def test_a_model_that_learnt_nothing_is_not_told_so_for_each_target():
    results = changed(healthy_clips(), "validation.reactions", scores(mean=0.0, joy=0.0, fear=0.0))
    (finding,) = find("every target above 0", results)
    assert finding.what.startswith("nothing learnt")
    assert find("inputs carry something", changed(results, "facts.inputs.mean_pearson", 0.01)) == []


def test_a_constant_label_is_told_once_and_not_as_a_flat_calibration_too():
    results = changed(
        healthy_clips(), "facts.labels.validation", labels(share_of_the_most_frequent=1.0)
    )
    results["calibration"]["scale"] = [1.0, 0.001]
    assert find("labels vary", results)
    assert find("calibrated", results) == []


def test_inputs_of_too_few_clips_or_of_older_runs_are_not_judged_by_length():
    path = "facts.inputs.channels.frown.length_correlation"
    few = changed(changed(healthy_clips(), path, 1.0), "facts.inputs.clips", 19)
    assert find("no input carries the length", few) is None
    older = changed(changed(healthy_clips(), path, None), path.replace("frown", "smile"), None)
    assert find("no input carries the length", older) is None


def test_a_missing_calibration_is_a_problem():
    results = healthy_clips()
    del results["calibration"]
    assert find("calibrated", results)[0].what.startswith("not calibrated")


def test_fishers_z_by_hand():
    # atanh(.5) = .5493, atanh(.3) = .3095: .2398 over sqrt(1/100 + 1/100) = .1414.
    assert count_errors_apart(0.5, 103, 0.3, 103) == pytest.approx(1.696, abs=1e-3)
    assert count_errors_apart(0.5, 3, 0.3, 103) == 0
    assert count_errors_apart(1.0, 103, 1.0, 103) == 0


# Files -------------------------------------------------------------------------------------------------------------


def test_results_without_facts_are_read_and_say_what_was_not_checked(capsys):
    """The shipped checkpoint's, which are older than the facts."""
    found = {
        diagnosis.stage: diagnosis
        for diagnosis in diagnose_files(ROOT / "mma_mrnnet" / "pretrained")
    }
    assert set(found) == {"mma", "mrnn"}
    if "facts" not in json.loads(found["mrnn"].file.read_text("utf-8")):
        assert {"no overfitting", "labels vary", "inputs carry something"} <= set(
            found["mrnn"].not_recorded
        )
        assert "every output taught" in found["mma"].not_recorded
    assert {"every target above 0", "calibrated"} <= set(found["mrnn"].held)
    for diagnosis in found.values():
        named = len(diagnosis.held) + len(diagnosis.not_recorded)
        assert named <= len(SIGNATURES[diagnosis.stage])
        problems = [one.what for one in diagnosis.findings if one.severity == "problem"]
        # Known: strong AU5 and AU24 are rare, and their outputs stay below .5.
        assert all("AU05 2, AU24 43" in what for what in problems)


def test_problems_come_before_notes_over_all_files_of_a_model(tmp_path):
    notes = changed(healthy_frames(), UNITS + "annotated", 0)
    problems = changed(healthy_clips(), "arguments.batch_size", 4)
    (tmp_path / "results_mma.json").write_text(json.dumps(notes))
    (tmp_path / "results_mrnn.json").write_text(json.dumps(problems))
    assert [finding.severity for finding in diagnose(tmp_path)] == ["problem", "note"]
    assert diagnose(tmp_path / "results_mrnn.json") == [
        Finding(
            "problem",
            "the loss is a correlation over 4 items a step; below 16 it is mostly noise",
            {"batch": 4, "least": 16},
            "Give --batch_size 16 or more; --micro_batch_size saves the memory.",
        )
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a result file that can be read"),
        (b"\xff\xfe\x00", "not a result file that can be read"),
        ("[" * 100_000, "not a result file that can be read"),
        (
            json.dumps(changed(healthy_clips(), "training.history", [3])),
            "history[0]: an object is needed",
        ),
        ("[]", "its stage must be mma or mrnn; got None"),
        ('{"stage": "other"}', "its stage must be mma or mrnn; got 'other'"),
        ('{"stage": ["mma"]}', "its stage must be mma or mrnn; got ['mma']"),
        (
            '{"stage": "mma"}',
            "results.json.command: is missing",
        ),
        (
            '{"stage": "mrnn", "training": {"history": [3]}}',
            "results.json.command: is missing",
        ),
        (json.dumps(changed(healthy_clips(), "arguments", {})), "not as training writes it"),
        (
            json.dumps(changed(healthy_clips(), "calibration.scale", [1.0])),
            "not as training writes it",
        ),
        (
            json.dumps(changed(healthy_clips(), "training.processes", 0)),
            "not as training writes it",
        ),
    ],
)
def test_a_file_that_training_did_not_write_is_named(tmp_path, content, message):
    file = tmp_path / "results.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"results\.json") as error:
        diagnose(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_place_without_results_says_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder or file"):
        diagnose(tmp_path / "nowhere")
    with pytest.raises(
        ValueError, match=r"looked for results\.json, results_mma\.json, results_mrnn\.json"
    ):
        diagnose(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(ValueError, match=r"no results\.json yet; the run has not ended"):
        diagnose(tmp_path)


def test_the_command_line_goes_on_after_a_run_that_cannot_be_read_and_writes_json(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "findings.json"
    run.mkdir()
    (run / "results.json").write_text(json.dumps(changed(healthy_clips(), MEAN, 0.01)))
    assert command(["diagnose", str(run), "--json", str(out)]) == 0  # what was found is no failure
    assert command(["diagnose", str(tmp_path / "nowhere"), str(run), "--json", str(out)]) == 1
    shown, said = capsys.readouterr()
    assert "nowhere: no such folder or file" in said
    assert f"{run / 'results.json'} (stage mrnn): 3 problems, 1 note" in shown
    assert "  problem  nothing learnt that could be shown: mean Pearson 0.010" in shown
    (written,) = json.loads(out.read_text("utf-8"))
    assert written["file"] == str(run / "results.json")
    assert written["findings"][0]["numbers"]["mean_pearson"] == 0.01
    assert "no overfitting" not in written["held"]  # .45 against .01
    assert not list(tmp_path.glob(".*"))


# Facts -------------------------------------------------------------------------------------------------------------


class MeanOfFirstInput(torch.nn.Module):
    """Says the mean of a clip's first channel, and keeps what it was shown."""

    device = torch.device("cpu")

    def __init__(self):
        super().__init__()
        self.shown = []

    def forward(self, affect, frame_mask):
        self.shown.append(affect)
        values = torch.where(frame_mask, affect[..., 0], 0.0).sum(1) / frame_mask.sum(1)
        return IntensityOutput(intensities=values[:, None])


def test_an_exchanged_channel_is_anothers_cut_or_going_on_with_its_last_value():
    clips = [torch.tensor([[1.0, 7.0]]), torch.tensor([[3.0, 8.0], [5.0, 9.0], [6.0, 9.5]])]
    affect, frame_mask = MMAMRNNetVideoProcessor().pad(clips, 4)
    model = MeanOfFirstInput()
    whole, drops = measure_drops(model, affect, frame_mask, torch.tensor([[0.1], [0.9]]))
    # Two clips: 1 and 14/3 rise with the labels, r = 1; exchanged 3 and 1 fall, r = -1. The second says nothing.
    assert (whole, drops) == (pytest.approx(1.0), [pytest.approx(2.0), pytest.approx(0.0)])
    first, second = model.shown[1], model.shown[2]
    assert first[0, :1].tolist() == [[3.0, 7.0]]
    assert first[1, :3].tolist() == [[1.0, 8.0], [1.0, 9.0], [1.0, 9.5]]
    assert second[0, :1].tolist() == [[1.0, 8.0]]
    assert second[1, :3].tolist() == [[3.0, 7.0], [5.0, 7.0], [6.0, 7.0]]


def test_nobody_keeps_its_own_channel_in_an_exchange():
    affect = torch.arange(3.0)[:, None, None].expand(3, 2, 1).contiguous()
    model = MeanOfFirstInput()
    # Whichever way round, 0, 1, 2 in a ring correlate by -1/2 with themselves.
    whole, drops = measure_drops(
        model, affect, torch.ones(3, 2, dtype=torch.bool), torch.arange(3.0)[:, None]
    )
    assert (whole, drops) == (pytest.approx(1.0), [pytest.approx(1.5)])


def clip_rows(lengths, kinds=None, size=2):
    generator = np.random.default_rng(0)
    rows = {
        "clip_id": [str(number) for number in range(len(lengths))],
        "subject": [""] * len(lengths),
        "kind": kinds or ["reaction"] * len(lengths),
        "affect": [generator.normal(size=(length, size)).astype(np.float32) for length in lengths],
        "labels": [[float(value)] for value in generator.uniform(size=len(lengths))],
    }
    return ClipDataset.from_rows(datasets.Dataset.from_dict(rows, features=clip_features(1, size)))


def feature_model(num_frames=4, size=2):
    names = [f"f{number}" for number in range(size)]
    config = {"num_frames": num_frames, "hidden_size": 4, "dense_size": 3, "num_labels": 1}
    return MMAMRNNetForIntensity(MMAMRNNetConfig(feature_names=names, **config)).eval()


def test_inputs_are_looked_at_in_reactions_alone_and_at_most_512_of_them():
    rows = clip_rows([2] * 1200, ["reaction", "neutral"] * 600)
    facts = describe_inputs(feature_model(), MMAMRNNetVideoProcessor(num_frames=4), rows)
    assert (facts.clips, facts.exchanged_clips) == (512, 512)
    assert facts.channels["f1"].deviation == pytest.approx(1, abs=0.1)
    assert (
        describe_inputs(feature_model(), MMAMRNNetVideoProcessor(), clip_rows([2], ["talking"]))
        is None
    )


@pytest.mark.parametrize("count", [1, 2])
def test_facts_of_very_few_clips_are_numbers_or_nothing(count):
    facts = describe_inputs(
        feature_model(), MMAMRNNetVideoProcessor(num_frames=4), clip_rows([1] * count)
    )
    assert facts.exchanged_clips == (0 if count == 1 else 2)
    assert (facts.channels["f0"].drop is None) == (count == 1)
    json.dumps(rounded(facts.to_json()), allow_nan=False)


def test_inputs_that_would_take_long_to_exchange_are_not_and_their_check_is_not_recorded(
    monkeypatch,
):
    monkeypatch.setattr(
        facts_module, "FRAMES", 63 * 3 * 4
    )  # 63 clips, of 4 frames, once whole and with 2 channels
    model, processor = feature_model(), MMAMRNNetVideoProcessor(num_frames=4)
    facts = describe_inputs(model, processor, clip_rows([3] * 100))
    assert (facts.clips, facts.exchanged_clips, facts.mean_pearson) == (100, 0, None)
    results = changed(healthy_clips(), "facts.inputs", facts.to_json())
    assert find("inputs carry something", results) == []
    assert find("more than one input counts", results) is None
    monkeypatch.setattr(facts_module, "FRAMES", 64 * 3 * 4)
    assert describe_inputs(model, processor, clip_rows([3] * 100)).exchanged_clips == 64


def test_facts_of_labels_by_hand_and_of_none():
    column = torch.tensor([[0.0], [0.0], [1.0], [float("nan")]])
    (facts,) = describe_labels(column, ["joy"]).values()
    deviation = pytest.approx(2**0.5 / 3)  # variance 1/3 * 2/3
    mean, share = pytest.approx(1 / 3), pytest.approx(2 / 3)
    assert facts == LabelFacts(3, mean, deviation, share, mean, share)
    assert describe_labels(column[3:], ["joy"]) == {"joy": LabelFacts(0)}


# Real runs with planted failures -----------------------------------------------------------------------------------

TABLES = [
    "--stage",
    "mrnn",
    "--num_frames",
    "4",
    "--hidden_size",
    "32",
    "--dense_size",
    "32",
    "--dropout",
    "0",
    "--batch_size",
    "32",
]
TABLES += ["--learning_rate", "0.02", "--epochs", "8"]
COUNT = 160  # clips a split


def table_corpus(folder, targets):
    """Clips of 1 to 5 frames with a smile, a dead column and noise; `targets` are names of labels."""
    generator = np.random.default_rng(0)
    dead = itertools.cycle([3.7, 3.7000004])  # a column of one value would be no feature at all
    for split in ("train", "validation"):
        rows = []
        for number in range(COUNT):
            path = folder / split / f"{number}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            smile = generator.uniform(0, 1)
            with path.open("w", encoding="utf-8", newline="") as file:
                frames = [
                    [smile + generator.normal(0, 0.1), next(dead), generator.normal()]
                    for _ in range(1 + number % 5)
                ]
                csv.writer(file).writerows([["smile", "dead", "noise"], *frames])
            known = {
                "joy": smile,
                "calm": 0.25,
                "chance": generator.uniform(0, 1),
                "luck": generator.uniform(0, 1),
            }
            rows.append([path.name, *(known[name] for name in targets)])
        with (folder / split / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["file_name", *targets], *rows])
    return folder


def trained(folder, *targets):
    corpus = table_corpus(folder / "clips", targets)
    assert main([*TABLES, "--data", f"clips:{corpus}", "--output", str(folder / "run")]) == 0
    return json.loads((folder / "run" / "results.json").read_text("utf-8")), diagnose(
        folder / "run"
    )


def text_of(findings):
    return "\n".join(f"{finding.severity} {finding.what}" for finding in findings)


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("planted"), "joy", "calm", "chance")


def test_a_run_records_the_facts_and_they_are_right(planted):
    results, _ = planted
    facts = results["facts"]
    assert set(facts) == {"train", "labels", "outputs", "inputs"}
    assert facts["train"]["clips"] == COUNT
    assert facts["train"]["pearson"]["joy"] > 0.8
    assert set(facts["labels"]) == {"train", "validation"}
    calm = {"labelled": COUNT, "mean": 0.25, "deviation": 0.0, "share_at_0": 0.0, "share_at_1": 0.0}
    assert facts["labels"]["train"]["calm"] == {**calm, "share_of_the_most_frequent": 1.0}
    assert facts["labels"]["validation"]["joy"]["deviation"] == pytest.approx(1 / 12**0.5, abs=0.03)
    joy = facts["outputs"]["validation"]["joy"]
    assert joy["deviation_of_logits"] > 0.1
    assert 0 <= joy["least"] < joy["mean"] < joy["most"] <= 1
    assert facts["inputs"]["clips"] == facts["inputs"]["exchanged_clips"] == COUNT
    # The same clips and model as the split's own scores.
    assert facts["inputs"]["mean_pearson"] == pytest.approx(
        results["validation"]["reactions"]["mean_pearson"], abs=1e-4
    )
    channels = facts["inputs"]["channels"]
    assert channels["dead"]["mean"] == 3.7
    assert channels["dead"]["deviation"] == pytest.approx(0, abs=1e-6)
    assert abs(channels["smile"]["length_correlation"]) < 0.3
    assert channels["smile"]["drop"] > 0.2 > abs(channels["noise"]["drop"])
    assert channels["noise"]["deviation"] == pytest.approx(1, abs=0.15)


def test_a_constant_label_a_dead_input_and_a_target_of_noise_are_named(planted):
    said = text_of(planted[1])
    assert "problem labels of train that never vary (their value): calm 0.250" in said
    assert "problem labels of validation that never vary (their value): calm 0.250" in said
    assert "problem input channels that never change (deviation over frames): dead" in said
    assert "problem Pearson not above 0 on validation (n = 160): chance" in said
    assert "joy" not in "".join(line for line in said.splitlines() if line.startswith("problem"))
    assert "nothing learnt" not in said


def test_labels_of_pure_noise_are_named(tmp_path):
    results, findings = trained(tmp_path, "chance", "luck")
    assert abs(results["validation"]["reactions"]["mean_pearson"]) < 2 / COUNT**0.5
    assert "problem nothing learnt that could be shown: mean Pearson" in text_of(findings)
    assert "n = 160" in text_of(findings)
