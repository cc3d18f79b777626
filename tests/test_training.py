"""The whole of training on tiny data: hand-over, resume, calibration, best model, results, errors, two processes."""

import json
import logging
import math
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from accelerate.scheduler import AcceleratedScheduler
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoVideoProcessor

from mma_mrnnet import MMAModel, MMAMRNNetConfig, MMAMRNNetForIntensity, train
from mma_mrnnet.files import MARK, locked, replaced_folder
from mma_mrnnet.hub.checkpoints import load_checkpoint
from mma_mrnnet.hub.export import export_checkpoint
from mma_mrnnet.model.labels import ACTION_UNITS, action_unit_name, presence_target
from mma_mrnnet.model.losses import squared_error_loss
from mma_mrnnet.results import EarlierRun, RunResults, read_results
from mma_mrnnet.synthetic.drawn_faces import drawn_faces
from mma_mrnnet.train import main
from mma_mrnnet.training import loop
from mma_mrnnet.training.arguments import TrainArguments, command_line, parse_arguments
from mma_mrnnet.training.calibration import STEEP_SLOPE, affine_calibration
from mma_mrnnet.training.clip_corpora import ClipSplit
from mma_mrnnet.training.reports import mma_scores
from mma_mrnnet.training.stages import _calibrate, mma_stage, mrnn_stage

ROOT = Path(__file__).resolve().parents[1]
NAN = float("nan")
BACKBONE = [
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
FACES = [
    "--stage",
    "mma",
    "--data",
    "drawn",
    *BACKBONE,
    "--image_size",
    "32",
    "--items",
    "40",
    "--batch_size",
    "8",
]
FACES += ["--learning_rate", "0.01", "--epochs", "2"]
CLIPS = [
    "--stage",
    "mrnn",
    "--data",
    "simulated",
    "--clips",
    "48",
    "24",
    "24",
    "--batch_size",
    "16",
]
CLIPS += ["--hidden_size", "8", "--dense_size", "6", "--learning_rate", "0.01", "--epochs", "2"]


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


def leftovers(folder):
    return [path for path in Path(folder).rglob("*") if "tmp" in path.name]


def results_of(run):
    def refuse(word):
        raise AssertionError(f"{word} is not strict JSON")

    return json.loads((run / "results.json").read_text("utf-8"), parse_constant=refuse)


def stage_arguments(words, output):
    return parse_arguments([*words, "--output", str(output)])


@pytest.fixture(scope="module")
def stage1(tmp_path_factory):
    run = tmp_path_factory.mktemp("stage1") / "run"
    assert main([*FACES, "--output", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def stage2(stage1, tmp_path_factory):
    run = tmp_path_factory.mktemp("stage2") / "run"
    assert main([*CLIPS, "--mma", str(stage1 / "model"), "--output", str(run)]) == 0
    return run


def scripted(stage, scores):
    """The stage with the given validation scores, one an epoch."""
    remaining = iter(scores)
    return replace(stage, score=lambda outputs, labels: {stage.score_name: next(remaining)})


# What a run leaves behind ------------------------------------------------------------------------------------------


def test_auto_classes_load_a_stage_1_run_with_nothing_exported(stage1):
    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    pixels = AutoImageProcessor.from_pretrained(stage1 / "model")(
        list(crops), return_tensors="pt"
    ).pixel_values
    ours = AutoVideoProcessor.from_pretrained(stage1 / "model")
    assert (pixels - ours.scale(crops)).abs().max() <= 1e-6
    assert AutoModel.from_pretrained(stage1 / "model")(pixels).affect.shape == (2, 26)


@pytest.mark.parametrize(("run", "stage"), [("stage1", "mma"), ("stage2", "mrnn")])
def test_a_run_leaves_model_best_checkpoints_results_and_log(run, stage, request):
    run = request.getfixturevalue(run)
    assert sorted(path.name for path in run.iterdir()) == [
        "best",
        "checkpoints",
        "log.jsonl",
        "model",
        "results.json",
    ]
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "epoch-0001",
        "epoch-0002",
    ]
    assert not leftovers(run)
    assert (run / "model" / f"results_{stage}.json").read_text() == (
        run / "results.json"
    ).read_text()
    for name in (
        "best",
        "model",
    ):  # AutoImageProcessor is for stage 1 alone; AutoVideoProcessor is for both
        assert (run / name / "video_preprocessor_config.json").is_file()
        assert (run / name / "preprocessor_config.json").is_file() == (stage == "mma")
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    history = results_of(run)["training"]["history"]
    assert [row["epoch"] for row in history] == [1, 2]
    assert all(math.isfinite(row["train_loss"]) for row in history)


def test_stage_1_learns(stage1):
    history = results_of(stage1)["training"]["history"]
    assert history[1]["train_loss"] < history[0]["train_loss"]


def test_a_stage_1_run_records_its_positive_labels_and_what_it_says_itself(stage1):
    results = results_of(stage1)
    labels, drawn = (
        results["facts"]["labels"]["train"],
        drawn_faces(40, seed=0, size=32)["expression"],
    )
    assert labels["images"] == 40
    assert list(labels["expressions"].values()) == [drawn.count(number) for number in range(7)]
    assert all(
        0 <= row["present"] <= row["annotated"] <= 40 for row in labels["action_units"].values()
    )
    assert results["facts"]["untrained_outputs"] == []
    assert all("predicted" in row for row in results["validation"]["all"]["action_units"].values())


def test_the_units_that_labels_reached_are_recorded(stage1):
    assert MMAModel.from_pretrained(stage1 / "model").config.prior_only_action_units == []


@pytest.mark.parametrize("run", ["stage1", "stage2"])
def test_the_results_hold_the_command_that_repeats_the_run(run, request):
    results = results_of(request.getfixturevalue(run))
    words = results["command"].split()
    assert words[:3] == ["accelerate", "launch", "train.py"]
    repeated = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(parse_arguments(words[3:])).items()
    }
    assert repeated == results["arguments"]


def test_stage_2_carries_the_results_of_stage_1(stage1, stage2):
    carried = (stage2 / "model" / "results_mma.json").read_text()
    assert carried == (stage1 / "model" / "results_mma.json").read_text()


def test_model_files_are_readable_by_whom_the_umask_lets(stage1, stage2):
    for run in (stage1, stage2):
        for folder in ("best", "model"):
            modes = {path.stat().st_mode & 0o777 for path in (run / folder).iterdir()}
            assert len(modes) == 1  # the weights' too


def test_simulated_clips_come_at_the_rate_that_is_asked_for(stage1, tmp_path, caplog):
    words = [*CLIPS, "--mma", str(stage1 / "model"), "--sampling_fps", "1"]
    stage = mrnn_stage(stage_arguments(words, tmp_path))
    assert stage.train.lengths.max() <= 15
    assert stage.model.config.sampling_fps == 1.0
    what = "simulated reactions; no person was recorded or rated; 1 frames a second"
    assert stage.data.data == what
    assert "thinned" not in caplog.text


def test_a_domain_with_a_rate_of_its_own_hands_its_frames_over_as_they_come_and_says_so_once(
    stage1, tmp_path, caplog
):
    words = [*CLIPS, "--mma", str(stage1 / "model"), "--data", "simulated:rate"]
    stage = mrnn_stage(stage_arguments(words, tmp_path))
    lengths = np.concatenate([stage.train.lengths, stage.validation.lengths])
    assert 30 < lengths.max() <= 45
    assert stage.data.data == (
        "simulated reactions; no person was recorded or rated; 3 frames a second; "
        "domain rate: frames handed over as they come, 3 a second"
    )
    assert stage.model.config.sampling_fps == 2.0
    assert stage.collator([stage.train[0]])["affect"].shape == (1, 30, 26)
    assert stage.train_collator([stage.train[0]])["affect"].shape == (1, 30, 26)
    (warning,) = [
        record.getMessage() for record in caplog.records if "thinned" in record.getMessage()
    ]
    assert re.fullmatch(
        r"(\d+) of 96 clips have more than --num_frames 30 frames, up to 4\d: they are thinned evenly to 30",
        warning,
    )
    assert int(warning.split()[0]) > 48


def test_stage_1_measures_the_errors_of_its_extractor_on_validation(stage1):
    errors = results_of(stage1)["errors"]
    assert list(errors) == ["all", "made", "drawn"]
    assert errors["made"] == errors["all"]
    assert errors["made"]["rows"] == 8
    assert set(errors["made"]["action_units"].values()) == {None}  # eight rows tell nothing


def measured_errors():
    """What stage 1 would have written of an extractor that reports every unit alike."""
    unit = {
        "annotated": 30,
        "floor": -3.0,
        "slope": 6.0,
        "person": 0.4,
        "frame": 0.5,
        "cross_talk": {"AU01": 1.0},
    }
    units = {action_unit_name(unit): None for unit in (11, 23)}
    units |= {action_unit_name(number): unit for number in ACTION_UNITS if number not in (11, 23)}
    found = {"rows": 30, "action_units": units, "expressions": None, "neutral_talkers": None}
    return {"all": found | {"valence_arousal": {"valence": None, "arousal": None}}}


def with_errors(path, errors):
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "errors": errors}))


def test_stage_2_trains_on_the_errors_that_stage_1_measured(stage1, tmp_path):
    mma = shutil.copytree(stage1 / "model", tmp_path / "mma")
    with_errors(mma / "results_mma.json", measured_errors())
    words = [
        *CLIPS,
        "--mma",
        str(mma),
        "--data",
        "simulated:measured",
        "--short_share",
        "0.5",
        "--epochs",
        "1",
    ]
    assert main([*words, "--output", str(tmp_path / "run")]) == 0
    what = results_of(tmp_path / "run")["data"]["data"]
    assert what.startswith(
        "simulated reactions; no person was recorded or rated; 2 frames a second; domain measured:"
    )


def test_other_measured_errors_are_other_data_to_a_run_that_goes_on(stage1, tmp_path):
    mma = shutil.copytree(stage1 / "model", tmp_path / "mma")
    words = [*CLIPS, "--mma", str(mma), "--data", "simulated:measured"]
    seen = []
    for floor in (-3.0, -3.0, -2.0):
        errors = measured_errors()
        errors["all"]["action_units"]["AU01"] = errors["all"]["action_units"]["AU02"] | {
            "floor": floor
        }
        with_errors(mma / "results_mma.json", errors)
        seen.append(mrnn_stage(stage_arguments(words, tmp_path)).fingerprint)
    assert seen[0] == seen[1] != seen[2]


@pytest.mark.parametrize("place", ["unmeasured", "nowhere"])
def test_measured_clips_without_measured_errors_are_refused_in_one_line(
    stage1, tmp_path, capsys, place
):
    mma = (
        shutil.copytree(stage1 / "model", tmp_path / "mma")
        if place == "unmeasured"
        else tmp_path / "mma"
    )
    words = [
        *CLIPS,
        "--mma",
        str(mma),
        "--data",
        "simulated:measured",
        "--output",
        str(tmp_path / "run"),
    ]
    assert main(words) == 1
    message = (
        "no action unit was measured"
        if place == "unmeasured"
        else "repeats the extractor's measured errors"
    )
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("data", ["simulated", "simulated:people"])
def test_simulated_clips_of_any_domain_need_an_extractor(data, tmp_path):
    with pytest.raises(ValueError, match="needs --mma"):
        TrainArguments(stage="mrnn", data=data, output=tmp_path)


def test_no_saved_config_says_where_the_extractor_lay(stage1, stage2):
    for folder in (stage2 / "best", stage2 / "model"):
        assert str(stage1) not in (folder / "config.json").read_text()


# Hand-over ---------------------------------------------------------------------------------------------------------


def test_the_extractor_goes_into_stage_2_bit_by_bit_and_training_leaves_it_alone(stage1, stage2):
    extractor = weights(stage1 / "model")
    assert any("running_mean" in name for name in extractor)
    for place in (stage2 / "model", stage2 / "checkpoints" / "epoch-0002"):
        inside = {
            name.removeprefix("mma."): value
            for name, value in weights(place).items()
            if name.startswith("mma.")
        }
        assert same(inside, extractor)


def test_stage_2_is_changed_by_its_training(stage2):
    first, last = (
        weights(stage2 / "checkpoints" / "epoch-0001"),
        weights(stage2 / "checkpoints" / "epoch-0002"),
    )
    changed = {name.split(".")[0] for name in first if not torch.equal(first[name], last[name])}
    assert changed == {"rnn", "dense", "output"}


# Resume ------------------------------------------------------------------------------------------------------------


def stop_after_first_checkpoint(monkeypatch):
    save = loop.save_checkpoint

    def save_and_stop(*arguments):
        save(*arguments)
        raise RuntimeError("stopped by the test")

    monkeypatch.setattr(loop, "save_checkpoint", save_and_stop)


@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_stopped_and_resumed_is_bit_equal_to_straight_through(tmp_path, monkeypatch, workers):
    words = [*FACES, "--epochs", "3", "--warmup", "0.4", "--dropout", "0.2", "--workers", workers]
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    assert main([*words, "--output", str(straight)]) == 0
    with monkeypatch.context() as patch:
        stop_after_first_checkpoint(patch)
        assert main([*words, "--output", str(stopped)]) == 1
    assert not (stopped / "model").exists()
    torch.rand(3)  # whatever happened in between
    np.random.rand(3)
    assert main([*words, "--output", str(stopped), "--resume"]) == 0
    for place in ("checkpoints/epoch-0003", "best", "model"):
        assert same(weights(straight / place), weights(stopped / place))
    one, other = (results_of(run)["training"] for run in (straight, stopped))
    assert one["best_epoch"] == other["best_epoch"]
    untimed = [[{**row, "seconds": 0} for row in training["history"]] for training in (one, other)]
    assert untimed[0] == untimed[1]


def test_the_number_of_workers_changes_no_bit_of_two_mixed_corpora(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name, count in (("few", 9), ("many", 30)):
        (tmp_path / name).mkdir()
        for split, rows in (
            ("train", drawn_faces(count, seed=count, size=32)),
            ("validation", drawn_faces(8, seed=1)),
        ):
            named = rows.remove_columns("source").add_column("source", [name] * len(rows))
            named.to_parquet(str(tmp_path / name / f"{split}-0.parquet"))
    words = [*FACES, "--data", f"face_parquet:{tmp_path / 'few'},face_parquet:{tmp_path / 'many'}"]
    words += ["--balance", "corpora", "--dropout", "0.2"]
    for workers in ("0", "2"):
        assert main([*words, "--workers", workers, "--output", str(tmp_path / workers)]) == 0
    assert same(weights(tmp_path / "0/model"), weights(tmp_path / "2/model"))
    drawn = results_of(tmp_path / "0")["data"]["items_an_epoch"]
    assert (drawn["few"]["images"], drawn["many"]["images"]) == (20, 19)
    assert {"few", "many"} <= set(results_of(tmp_path / "0")["validation"])
    # What was augmented is not what was not.
    assert main([*words, "--augment", "False", "--output", str(tmp_path / "plain")]) == 0
    assert main([*words, "--augmentations", "mirror", "--output", str(tmp_path / "mirror")]) == 0
    found = [
        weights(tmp_path / name / "model")["expression_head.weight"]
        for name in ("0", "plain", "mirror")
    ]
    assert not any(torch.equal(found[one], found[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


def test_stage_2_stopped_and_resumed_is_bit_equal(stage1, tmp_path, monkeypatch):
    words = [*CLIPS, "--epochs", "3", "--mma", str(stage1 / "model"), "--dropout", "0.2"]
    assert main([*words, "--output", str(tmp_path / "straight")]) == 0
    with monkeypatch.context() as patch:
        stop_after_first_checkpoint(patch)
        assert main([*words, "--output", str(tmp_path / "stopped")]) == 1
    assert main([*words, "--output", str(tmp_path / "stopped"), "--resume"]) == 0
    assert same(weights(tmp_path / "straight" / "model"), weights(tmp_path / "stopped" / "model"))


def test_gradient_accumulation_by_accelerate_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert main([*FACES, "--output", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS=4: gradients are not accumulated" in said
    assert not (tmp_path / "run").exists()
    args = stage_arguments(FACES, tmp_path)
    with pytest.raises(RuntimeError, match="gradients are not accumulated"):
        loop.fit(mma_stage(args), args)


def test_a_steep_line_of_calibration_is_said_and_recorded(stage1, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "mma_mrnnet")
    args = stage_arguments([*CLIPS, "--mma", str(stage1 / "model")], tmp_path)
    stage = mrnn_stage(args)
    with torch.no_grad():
        stage.model.output.weight.mul_(1e-3)  # outputs that hardly vary
    _, calibration = _calibrate(
        stage.model.eval(),
        lambda rows: loop.predict_dataset(stage, stage.model, rows, args),
        {"train": ClipSplit(stage.train, stage.train), "validation": validation_of(stage)},
    )
    steep = [slope for slope in calibration.scale if slope >= STEEP_SLOPE]
    assert steep
    assert caplog.text.count("it stretches noise") == len(steep)
    assert f"a line of slope {steep[0]:.1f}, fitted on 24 clips" in caplog.text
    assert calibration.clips == [24] * 7


def validation_of(stage):
    return ClipSplit(stage.validation, stage.validation)


def test_half_written_checkpoints_are_passed_over(stage1, tmp_path, monkeypatch):
    run = tmp_path / "run"
    words = [*FACES, "--output", str(run)]
    with monkeypatch.context() as patch:
        stop_after_first_checkpoint(patch)
        assert main(words) == 1
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = f"{MARK}0123456789ab-{gone.pid}-01234567"  # of a process that was killed
    for name in ("epoch-0002", left):
        (run / "checkpoints" / name).mkdir()
        (run / "checkpoints" / name / "model.safetensors").write_bytes(b"half")
    (run / left).mkdir()  # cut off while the last model was written
    assert main([*words, "--resume"]) == 0
    assert same(weights(run / "model"), weights(stage1 / "model"))
    assert not leftovers(run)


def test_resuming_with_another_number_of_processes_is_refused(stage1, tmp_path, capsys):
    run = shutil.copytree(stage1, tmp_path / "run")
    marker = run / "checkpoints" / "epoch-0002" / "COMPLETE"
    content = json.loads(marker.read_text())
    content["settings"]["processes"] = 2
    content["files"]["random_states_1.pkl"] = content["files"]["random_states_0.pkl"]
    shutil.copy(marker.parent / "random_states_0.pkl", marker.parent / "random_states_1.pkl")
    marker.write_text(json.dumps(content))
    assert main([*FACES, "--output", str(run), "--resume"]) == 1
    assert "was written with processes 2, now 1" in capsys.readouterr().err


def test_a_new_run_does_not_mix_with_an_old_one_in_the_same_folder(stage1, tmp_path, capsys):
    run = shutil.copytree(stage1, tmp_path / "run")
    assert main([*FACES, "--output", str(run)]) == 1
    assert "holds an earlier run: --resume continues it" in capsys.readouterr().err
    assert same(weights(run / "model"), weights(stage1 / "model"))


def test_resume_without_a_checkpoint_starts_anew(stage1, tmp_path):
    assert main([*FACES, "--output", str(tmp_path / "run"), "--resume"]) == 0
    assert same(weights(tmp_path / "run" / "model"), weights(stage1 / "model"))


def test_a_finished_run_resumed_gives_the_same_model(stage2, tmp_path):
    run = shutil.copytree(stage2, tmp_path / "run")
    shutil.rmtree(run / "model")
    assert main([*results_of(stage2)["command"].split()[3:], "--output", str(run), "--resume"]) == 0
    assert same(weights(run / "model"), weights(stage2 / "model"))


def test_only_the_newest_checkpoints_stay(tmp_path):
    assert (
        main([*FACES, "--epochs", "3", "--keep_checkpoints", "1", "--output", str(tmp_path)]) == 0
    )
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch-0003"]


# The best model ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.1, 0.9, 0.2], 2),
        ([0.9, 0.9, 0.9], 1),
        ([NAN, 0.1, NAN], 2),
        ([NAN, -0.5, -0.2], 3),
        ([NAN, NAN, NAN], 1),
    ],
)
def test_the_best_epochs_model_is_what_lands_in_model_and_not_the_last(tmp_path, scores, best):
    args = stage_arguments([*FACES, "--epochs", "3", "--keep_checkpoints", "3"], tmp_path)
    args.output.mkdir(exist_ok=True)
    results = loop.fit(scripted(mma_stage(args), scores), args)
    assert results.training.best_epoch == best
    assert same(weights(tmp_path / "best"), weights(tmp_path / "checkpoints" / f"epoch-{best:04d}"))
    # The model is the best epoch's, but for two heads that calibration changed.
    model, kept = (
        {n: w for n, w in weights(tmp_path / place).items() if "_head" not in n}
        for place in ("model", "best")
    )
    assert same(model, kept)
    assert results.to_json() == results_of(tmp_path)


def test_patience_stops_after_epochs_without_a_better_score(tmp_path):
    args = stage_arguments([*FACES, "--epochs", "9", "--patience", "2"], tmp_path)
    results = loop.fit(scripted(mma_stage(args), [0.1, 0.3, 0.2, 0.3, 0.9]), args)
    assert results.training.epochs == 4
    assert results.training.best_epoch == 2


# Calibration -------------------------------------------------------------------------------------------------------


def test_calibration_is_the_least_squares_line_of_the_labelled_rows():
    prediction = torch.rand(50, 3)
    target = torch.stack(
        [2 * prediction[:, 0] - 0.3, 0.5 * prediction[:, 1], torch.full((50,), NAN)], 1
    )
    target = target + 0.1 * torch.rand(50, 3)
    target[::3, 1] = NAN
    scale, shift = affine_calibration(prediction, target)
    for column, rows in ((0, slice(None)), (1, ~target[:, 1].isnan())):
        slope, intercept = np.polyfit(
            prediction[rows, column].double(), target[rows, column].double(), 1
        )
        assert scale[column].item() == pytest.approx(slope, rel=1e-5)
        assert shift[column].item() == pytest.approx(intercept, abs=1e-5)
    assert (scale[2].item(), shift[2].item()) == (1.0, 0.0)


def test_calibration_by_hand():
    # x = 0, 1, 2 and y = 0.1, 0.1, 0.4: slope 0.3 / 2, through the means (1, 0.2).
    scale, shift = affine_calibration(
        torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.1], [0.1], [0.4]])
    )
    assert scale.item() == pytest.approx(0.15)
    assert shift.item() == pytest.approx(0.05)


@pytest.mark.parametrize(
    "prediction", [[0.0, 1.0, 2.0], [1.0, 1.0, 1.0]], ids=["falling", "constant"]
)
def test_calibration_never_turns_an_order_round(prediction):
    scale, shift = affine_calibration(
        torch.tensor(prediction)[:, None], torch.tensor([[0.9], [0.5], [0.1]])
    )
    assert scale.item() == pytest.approx(0.001)
    assert scale.item() + shift.item() == pytest.approx(
        0.5
    )  # at the mean prediction, 1, stands the mean label


def test_the_calibration_travels_with_the_weights(stage2):
    before = MMAMRNNetForIntensity.from_pretrained(stage2 / "best").eval()
    after = MMAMRNNetForIntensity.from_pretrained(stage2 / "model").eval()
    assert (before.config.calibrated, after.config.calibrated) == (False, True)
    assert torch.equal(before.calibration_scale, torch.ones(7))
    assert (after.calibration_scale > 0).all()
    written = results_of(stage2)["calibration"]
    assert torch.allclose(
        after.calibration_scale, torch.tensor(written["scale"]), rtol=1e-3, atol=1e-4
    )
    affect = torch.rand(5, 30, 26)
    plain = before(affect=affect).intensities
    wanted = (after.calibration_scale * plain + after.calibration_shift).clamp(0, 1)
    assert torch.allclose(after(affect=affect).intensities, wanted, atol=1e-6)


def test_calibration_is_fitted_on_validation_to_its_labels(stage1, tmp_path):
    args = stage_arguments([*CLIPS, "--mma", str(stage1 / "model")], tmp_path)
    stage = mrnn_stage(args)
    model = stage.model.eval()
    with torch.no_grad():
        model.output.bias.sub_(1.0)  # far from the labels
    predict = lambda rows: loop.predict_dataset(stage, model, rows, args)  # noqa: E731
    written = read_results(stage1 / "results.json")
    record = RunResults(**{part.name: getattr(written, part.name) for part in fields(RunResults)})
    before, labels = predict(stage.validation)
    stage.finish(model, predict, record)
    after, _ = predict(stage.validation)
    assert len(before["intensities"]) == 24
    errors = [
        squared_error_loss(outputs["intensities"], labels["labels"]) for outputs in (before, after)
    ]
    assert errors[1] < errors[0]
    assert torch.allclose(after["intensities"].mean(0), labels["labels"].mean(0), atol=0.02)


# Arguments ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--augment", "False", "--seed", "7", "--learning_rate", "3e-05"],
        ["--hidden_sizes", "8", "16", "--depths", "1", "1", "--clips", "1", "2", "3"],
        ["--monitor", "a score with 'quotes'", "--sampling_fps", "2.5"],
        [
            "--augmentations",
            "mirror",
            "blur",
            "--balance",
            "classes",
            "--co_annotation",
            "soft",
            "--action_units",
            "4",
        ],
        [
            "--channels",
            "expressions",
            "action_units",
            "--temporal_pooling",
            "last",
            "--length_policy",
            "truncate",
        ],
    ],
)
def test_the_command_line_comes_back_as_the_same_arguments(words):
    import shlex

    args = parse_arguments(["--stage", "mma", "--data", "drawn", "--output", "some/where", *words])
    assert parse_arguments(shlex.split(command_line(args))[3:]) == args


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": "both"}, "--stage must be one of mma, mrnn; got 'both'"),
        ({"stage": "mrnn"}, "needs --mma"),
        ({"stage": "mrnn", "mma": "x", "clips": [1, 2]}, "--clips needs three"),
        ({"stage": "mrnn", "mma": "x", "clips": [9, 9, 0]}, "--clips needs three"),
        ({"depths": [1, 1]}, "--hidden_sizes and --depths"),
        ({"epochs": 0}, "--epochs must be at least 1"),
        ({"batch_size": -1}, "--batch_size must be at least 1"),
        ({"warmup": 1.0}, r"--warmup must be in \[0, 1\)"),
        ({"quiet_share": -0.1}, "--quiet_share must be in"),
        ({"balance": "people"}, "--balance must be one of off, corpora, classes; got 'people'"),
        ({"channels": []}, r"--channels must be one or more of valence_arousal, .*; got \[\]"),
        ({"channels": ["faces"]}, r"--channels must be .*; got \['faces'\]"),
        (
            {"temporal_pooling": "max"},
            "--temporal_pooling must be one of mask, .*, attention, statistics; got 'max'",
        ),
        (
            {"affect_transform": "log"},
            "--affect_transform must be one of none, logits; got 'log'",
        ),
        ({"quiet_weight": -1.0}, "--quiet_weight must be a number from 0 on; got -1.0"),
        (
            {"length_policy": "loop"},
            "--length_policy must be one of thin, truncate, resample; got 'loop'",
        ),
        (
            {"stage": "mrnn", "mma": "x", "strict_routing": True, "temporal_pooling": "padded"},
            "--strict_routing needs --temporal_pooling mask: .*; got 'padded'",
        ),
        (
            {"augmentations": ["mirror", "turn"]},
            "--augmentations must be among mirror, .*, compression; got turn",
        ),
    ],
)
def test_arguments_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        TrainArguments(**{"stage": "mma", "data": "drawn", "output": Path("x"), **change})


# Networks to compare the method with -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "gru", "dense", "policy"),
    [
        (["--temporal_pooling", "padded", "--length_policy", "truncate"], 26, 240, "truncate"),
        (["--temporal_pooling", "mean", "--channels", "expressions"], 7, 8, "thin"),
        (
            ["--temporal_pooling", "attention", "--channels", "valence_arousal", "action_units"],
            19,
            8,
            "thin",
        ),
        (
            ["--temporal_pooling", "last", "--length_policy", "resample", "--num_frames", "9"],
            26,
            8,
            "resample",
        ),
    ],
)
def test_channels_pooling_and_lengths_reach_the_trained_model_and_its_processor(
    stage1, tmp_path, words, gru, dense, policy
):
    assert (
        main([*CLIPS, "--mma", str(stage1 / "model"), *words, "--output", str(tmp_path / "run")])
        == 0
    )
    model, processor = load_checkpoint(tmp_path / "run" / "model")
    assert (model.rnn.gru.input_size, model.dense.in_features, processor.length_policy) == (
        gru,
        dense,
        policy,
    )
    assert (
        f"--temporal_pooling {model.config.temporal_pooling}"
        in results_of(tmp_path / "run")["command"]
    )
    states = [weights(tmp_path / "run/checkpoints" / name) for name in ("epoch-0001", "epoch-0002")]
    changed = {
        name.split(".")[0]
        for name in states[0]
        if not torch.equal(states[0][name], states[1][name])
    }
    assert changed == {"rnn", "dense", "output"}
    if "attention" in words:
        assert not torch.equal(states[0]["rnn.score.weight"], states[1]["rnn.score.weight"])


def test_the_defaults_written_out_are_the_same_run(stage1, stage2, tmp_path):
    words = [
        "--channels",
        "valence_arousal",
        "expressions",
        "action_units",
        "--temporal_pooling",
        "mask",
    ]
    words += ["--length_policy", "thin", "--mma", str(stage1 / "model"), "--output", str(tmp_path)]
    assert main([*CLIPS, *words]) == 0
    assert same(weights(tmp_path / "model"), weights(stage2 / "model"))


@pytest.mark.parametrize(
    "words",
    [
        ["--channels", "expressions"],
        ["--temporal_pooling", "mean"],
        ["--length_policy", "resample"],
    ],
)
def test_a_run_is_not_resumed_as_another_network(stage1, stage2, tmp_path, capsys, words):
    run = shutil.copytree(stage2, tmp_path / "run")
    assert (
        main([*CLIPS, "--mma", str(stage1 / "model"), "--output", str(run), "--resume", *words])
        == 1
    )
    assert f"was written with {words[0]} " in capsys.readouterr().err


# Errors ------------------------------------------------------------------------------------------------------------


def damaged(stage1, folder, name, content):
    shutil.copytree(stage1 / "model", folder)
    (folder / name).write_bytes(content)
    return folder


def wrong(case, stage1, tmp_path):
    """The words of a run that cannot be, and what its one line must say."""
    empty = tmp_path / "empty"
    empty.mkdir()
    other = ["--mma", str(stage1 / "model")]
    return {
        "unknown stage": (
            [*FACES, "--stage", "third"],
            "--stage must be one of mma, mrnn; got 'third'",
        ),
        "no extractor named": (CLIPS, "--stage mrnn needs --mma"),
        "extractor not there": (
            [*CLIPS, "--mma", str(tmp_path / "none")],
            f"--mma {tmp_path / 'none'}: not a checkpoint",
        ),
        "extractor folder empty": (
            [*CLIPS, "--mma", str(empty)],
            f"--mma {empty}: not a checkpoint",
        ),
        "extractor truncated": (
            [*CLIPS, "--mma", str(damaged(stage1, tmp_path / "cut", "model.safetensors", b"half"))],
            f"--mma {tmp_path / 'cut'}: not a checkpoint",
        ),
        "extractor's config broken": (
            [*CLIPS, "--mma", str(damaged(stage1, tmp_path / "bad", "config.json", b"{"))],
            f"--mma {tmp_path / 'bad'}: not a checkpoint",
        ),
        "other clips": (
            [*CLIPS, *other, "--data", "mine"],
            "clips:FOLDER or hume:FOLDER; got 'mine'",
        ),
        "no parquet": ([*FACES, "--data", str(empty)], f"{empty}: no train-*.parquet here"),
        "too few items": (
            [*FACES, "--batch_size", "64"],
            "40 training items do not fill one batch of 64",
        ),
        "other processes": (
            [*FACES, "--expect_processes", "3"],
            "expected 3 processes; 1 are running",
        ),
        "loss diverges": (
            [*FACES, "--learning_rate", "1e30"],
            "the loss is nan in epoch 1; lower --learning_rate",
        ),
        "too small a crop": (
            [*FACES, "--image_size", "16"],
            "image_size must be at least 32; got 16",
        ),
    }[case]


@pytest.mark.parametrize(
    "case",
    [
        "unknown stage",
        "no extractor named",
        "extractor not there",
        "extractor folder empty",
        "extractor truncated",
        "extractor's config broken",
        "other clips",
        "no parquet",
        "too few items",
        "other processes",
        "loss diverges",
        "too small a crop",
    ],
)
def test_what_cannot_be_trained_says_so_in_one_line_and_leaves_nothing(
    case, stage1, tmp_path, capsys
):
    words, message = wrong(case, stage1, tmp_path)
    capsys.readouterr()
    assert main([*words, "--output", str(tmp_path / "run")]) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train:")]
    assert len(said) == 1
    assert message in said[0]
    assert not list((tmp_path / "run").glob("*"))  # not even a hidden folder


def test_an_output_that_is_a_file_is_named(tmp_path, capsys):
    (tmp_path / "taken").write_text("")
    assert main([*FACES, "--output", str(tmp_path / "taken")]) == 1
    assert str(tmp_path / "taken") in capsys.readouterr().err


def test_a_folder_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    with pytest.raises(OSError, match="full"), replaced_folder(tmp_path / "model") as staging:
        (staging / "new").touch()
        raise OSError("full")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]


# Real folders, and what comes of a run -----------------------------------------------------------------------------


def test_stage_1_learns_from_a_folder_of_parquet_files(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "faces").mkdir()
    drawn_faces(20, seed=0, size=32).to_parquet(str(tmp_path / "faces" / "train-0.parquet"))
    drawn_faces(7, seed=1, size=32).to_parquet(str(tmp_path / "faces" / "validation-0.parquet"))
    assert main([*FACES, "--data", str(tmp_path / "faces"), "--output", str(tmp_path / "run")]) == 0
    results = results_of(tmp_path / "run")
    assert (results["data"]["train"], results["data"]["validation"]) == (20, 7)
    assert results["validation"]["all"]["images"] == results["validation"]["drawn"]["images"] == 7


@pytest.mark.parametrize("run", ["stage1", "stage2"])
def test_a_trained_model_is_exported_with_a_card_that_says_everything(run, request, tmp_path):
    from huggingface_hub import ModelCard

    model = request.getfixturevalue(run) / "model"
    folder = export_checkpoint(model, tmp_path / "hub")
    for results in model.glob("results_*.json"):
        exported = json.loads((folder / results.name).read_text())
        assert exported["validation"] == json.loads(results.read_text())["validation"]
        assert str(model.parent) not in json.dumps(exported)
    card = ModelCard.load(folder / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == ("transformers" if run == "stage1" else "mma_mrnnet")
    assert "None" not in card.text.split()
    assert not any(mark in card.text for mark in ("{{", "{%", "}}", "Undefined", " nan "))


# Two processes -----------------------------------------------------------------------------------------------------

WATCHED = """
import dataclasses, json, os, runpy, sys
from pathlib import Path
import mma_mrnnet.train
from accelerate.scheduler import AcceleratedScheduler
from accelerate.state import AcceleratorState
from mma_mrnnet.training.datasets import ClipDataset

seen = {"train": [], "rates": [], "validation": []}
items, build, step = ClipDataset.__getitems__, mma_mrnnet.train.STAGES["mrnn"], AcceleratedScheduler.step

def watched_items(rows, indices):
    if len(rows) == 51:
        seen["train"].append(list(indices))
    return items(rows, indices)

def watched_step(scheduler):
    step(scheduler)
    seen["rates"].append(scheduler.get_last_lr()[0])

def watched_stage(args):
    stage = build(args)
    def score(outputs, labels):
        seen["validation"].append(labels["labels"].tolist())
        seen["labels"] = [row["labels"].tolist() for row in stage.validation]
        return stage.score(outputs, labels)
    return dataclasses.replace(stage, score=score)

ClipDataset.__getitems__, mma_mrnnet.train.STAGES["mrnn"] = watched_items, watched_stage
AcceleratedScheduler.step = watched_step
train, target = sys.argv.pop(1), Path(sys.argv.pop(1))
try:
    runpy.run_path(train, run_name="__main__")
finally:
    (target / f"seen-{os.environ['RANK']}.json").write_text(json.dumps(seen))
"""


def launch(*words, environment=None, **options):
    command = [str(Path(sys.executable).with_name("accelerate")), "launch", *words]
    given = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    return subprocess.run(
        command, env=given, capture_output=True, text=True, timeout=240, check=False, **options
    )


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def check_rates(rates):
    """Learning rates after each step of 2 epochs x 3 steps, of which int(0.34 * 6) = 2 rise to 0.01."""
    # The other four follow a cosine: (1 + cos(k pi / 4)) / 2 of the peak, k = 1 ... 4.
    wanted = [0.005, 0.01, 0.01 * 0.853553, 0.01 * 0.5, 0.01 * 0.146447, 0.0]
    assert rates == pytest.approx(wanted, abs=1e-8)


@pytest.fixture(scope="module")
def two_processes(stage1, tmp_path_factory):
    """A finished run of two processes on sizes that are odd in every way, and what each process saw."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "watched.py").write_text(WATCHED)
    settings = f"--mma {stage1 / 'model'} --clips 51 23 17 --batch_size 7 --warmup 0.34 --expect_processes 2".split()
    done = launch(
        *("--multi_gpu", "--num_processes", "2", "--main_process_port", free_port()),
        *(str(folder / "watched.py"), str(ROOT / "train.py"), str(folder)),
        *(*CLIPS, *settings, "--output", str(folder / "run")),
        environment={"ACCELERATE_USE_CPU": "true"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "run", [
        json.loads((folder / f"seen-{rank}.json").read_text()) for rank in range(2)
    ]


@pytest.mark.slow
def test_two_processes_finish_a_run(two_processes):
    run, _ = two_processes
    results = results_of(run)
    assert results["training"]["processes"] == 2
    assert MMAMRNNetForIntensity.from_pretrained(run / "model").config.calibrated
    assert (results["validation"]["clips"], results["test"]["clips"]) == (23, 17)
    assert results["facts"]["train"]["clips"] == 51  # all of them, not this process's share
    assert results["facts"]["inputs"]["exchanged_clips"] == 23
    assert not leftovers(run)


@pytest.mark.slow
def test_two_processes_validate_each_clip_exactly_once(two_processes):
    _, seen = two_processes
    for rank in range(2):
        assert len(seen[rank]["validation"]) == 2  # epochs
        assert all(labels == seen[rank]["labels"] for labels in seen[rank]["validation"])
        assert len(seen[rank]["labels"]) == 23


@pytest.mark.slow
def test_two_processes_share_the_training_clips_without_overlap(two_processes):
    _, seen = two_processes
    # 51 clips make 7 batches of 7, of which each process takes 3 an epoch.
    # Larger reads are those of the input scaling and the baselines.
    read = [[batch for batch in one["train"] if len(batch) == 7] for one in seen]
    batches = [[share[3 * epoch :][:3] for share in read] for epoch in range(2)]
    epochs = [
        [[index for batch in share for index in batch] for share in shares] for shares in batches
    ]
    for one, other in epochs:
        assert len(one) == len(other) == 21
        assert len({*one, *other}) == 42
    assert epochs[0] != epochs[1]


@pytest.mark.slow
def test_with_two_processes_the_learning_rate_peaks_after_the_warmup_and_ends_at_zero(
    two_processes,
):
    _, seen = two_processes
    for rank in range(2):
        check_rates(seen[rank]["rates"])


def test_with_one_process_the_learning_rate_peaks_after_the_warmup_and_ends_at_zero(
    tmp_path, monkeypatch
):
    rates, step = [], AcceleratedScheduler.step

    def watched_step(scheduler):
        step(scheduler)
        rates.append(scheduler.get_last_lr()[0])

    monkeypatch.setattr(AcceleratedScheduler, "step", watched_step)
    # 40 items make 3 batches of 12 an epoch.
    assert main([*FACES, "--batch_size", "12", "--warmup", "0.34", "--output", str(tmp_path)]) == 0
    check_rates(rates)


@pytest.mark.slow
def test_the_module_can_be_launched_like_the_script(tmp_path, capsys):
    module = launch("-m", "mma_mrnnet.train", "--help", cwd=tmp_path)
    with pytest.raises(SystemExit):
        parse_arguments(["--help"])
    assert module.returncode == 0
    assert module.stdout.split()[-20:] == capsys.readouterr().out.split()[-20:]


def test_a_task_that_collapsed_to_a_constant_does_not_drop_out_of_the_score():
    rows = torch.arange(6.0).unsqueeze(-1) / 6
    outputs = {
        "action_unit_logits": rows.repeat(1, 2),
        "expression_logits": torch.eye(7)[[0, 1, 2, 3, 4, 5]],
        "valence_arousal": torch.zeros(6, 2),
    }
    labels = {"expression_labels": torch.arange(6), "valence_arousal_labels": rows.repeat(1, 2)}
    intensity = torch.cat([rows, torch.full((6, 1), float("nan"))], dim=1)
    scores = mma_scores(outputs, labels, intensity)
    # units about 1 (a sigmoid of the label), expressions 1, the constant task 0: about 2 / 3.
    assert scores["valence_arousal_ccc"] == 0.0
    assert scores["mean_of_tasks"] == pytest.approx(2 / 3, abs=0.01)


# Settings of the loop ----------------------------------------------------------------------------------------------


@pytest.fixture
def own_accelerate_state():
    """Accelerate fixes the precision once a process; a test that needs another leaves none behind."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


def test_bfloat16_trains_float32_weights_to_nearly_the_same_loss(
    stage1, tmp_path, own_accelerate_state
):
    assert main([*FACES, "--mixed_precision", "bf16", "--output", str(tmp_path)]) == 0
    half, full = results_of(tmp_path)["training"], results_of(stage1)["training"]
    assert (half["precision"], full["precision"]) == ("bf16", "no")
    assert half["history"][0]["train_loss"] == pytest.approx(
        full["history"][0]["train_loss"], rel=0.02
    )
    assert half["history"][0]["train_loss"] != full["history"][0]["train_loss"]
    assert {
        value.dtype for name, value in weights(tmp_path / "model").items() if "tracked" not in name
    } == {torch.float32}


def test_the_intensities_of_a_half_precision_run_are_as_fine_as_float32(tmp_path):
    """Steps of bfloat16 near 0.5 are 0.002: clips that differ by less would all get one number."""
    model = MMAMRNNetForIntensity(MMAMRNNetConfig(num_frames=4, hidden_size=8, dense_size=6)).eval()
    affect = torch.rand(64, 4, 26)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(affect=affect)
    assert output.intensities.dtype == torch.float32
    assert len(output.intensities[:, 0].unique()) > 60


def test_stage_2_trains_in_bfloat16(stage1, stage2, tmp_path, own_accelerate_state):
    words = [*CLIPS, "--mma", str(stage1 / "model"), "--mixed_precision", "bf16"]
    assert main([*words, "--output", str(tmp_path)]) == 0
    half, full = (
        results_of(run)["training"]["history"][0]["train_loss"] for run in (tmp_path, stage2)
    )
    assert half == pytest.approx(full, rel=0.05)


def test_any_of_a_stages_scores_can_choose_the_best_epoch(tmp_path):
    args = stage_arguments([*FACES, "--epochs", "3", "--monitor", "expression_f1"], tmp_path)
    stage, scores = mma_stage(args), iter([(0.9, 0.1), (0.5, 0.7), (0.1, 0.4)])
    names = ("mean_of_tasks", "expression_f1")
    stage = replace(
        stage, score=lambda outputs, labels: dict(zip(names, next(scores), strict=True))
    )
    results = loop.fit(stage, args)
    assert results.training.best_epoch == 2
    assert results.training.selected_by == "expression_f1"


def test_a_score_that_is_not_there_is_refused_before_training(tmp_path, capsys):
    assert main([*FACES, "--monitor", "accuracy", "--output", str(tmp_path / "run")]) == 1
    assert (
        "--monitor must be one of action_unit_correlation, expression_f1" in capsys.readouterr().err
    )
    assert not (tmp_path / "run" / "log.jsonl").exists()


@pytest.mark.parametrize(
    ("schedule", "last"),
    # 10 steps, the first 2 of them rising; after the ninth 7 of 8 falling steps are done.
    [
        ("constant", 0.01),
        ("linear", 0.01 * 1 / 8),
        ("cosine", 0.01 * 0.5 * (1 + math.cos(math.pi * 7 / 8))),
    ],
)
def test_the_schedule_after_the_warm_up(tmp_path, monkeypatch, schedule, last):
    rates, step = [], AcceleratedScheduler.step

    def watched_step(scheduler):
        step(scheduler)
        rates.append(scheduler.get_last_lr()[0])

    monkeypatch.setattr(AcceleratedScheduler, "step", watched_step)
    assert main([*FACES, "--warmup", "0.2", "--schedule", schedule, "--output", str(tmp_path)]) == 0
    assert rates[0] == pytest.approx(0.005)
    assert rates[8] == pytest.approx(last)


def test_trackers_get_the_loss_and_every_score(tmp_path):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert main([*FACES, "--log_with", "tensorboard", "--output", str(tmp_path)]) == 0
    events = EventAccumulator(str(tmp_path / "mma_mrnnet"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2]
    history = results_of(tmp_path)["training"]["history"]
    logged = [event.value for event in events.Scalars("validation/mean_of_tasks")]
    assert logged == pytest.approx([row["score"] for row in history], abs=1e-4)


def test_a_tracker_that_is_not_installed_is_refused(tmp_path, capsys):
    assert main([*FACES, "--log_with", "scribbler", "--output", str(tmp_path / "run")]) == 1
    assert "--log_with: scribbler: not a tracker that is installed here" in capsys.readouterr().err


def test_a_gradient_that_is_not_finite_stops_the_run_before_it_reaches_the_weights(
    tmp_path, monkeypatch, capsys
):
    def poisoned(accelerator, stage, model, batch, micro_batch_size):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, NAN)
        return torch.tensor(1.0)

    monkeypatch.setattr(loop, "backward", poisoned)
    assert main([*FACES, "--output", str(tmp_path)]) == 1
    assert "the gradient's norm is nan in epoch 1; lower --learning_rate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--schedule", "step"], "--schedule must be one of cosine, linear, constant; got 'step'"),
        (
            ["--mixed_precision", "fp8"],
            "--mixed_precision must be one of no, bf16, fp16; got 'fp8'",
        ),
        (["--micro_batch_size", "-1"], "--micro_batch_size must be at least 0; got -1"),
        (["--save_every", "-1"], "--save_every must be at least 0; got -1"),
        (["--strict_routing", "True"], "--strict_routing is for --stage mrnn"),
        (["--learning_rate", "inf"], "--learning_rate must be a number above 0; got inf"),
        (["--max_gradient_norm", "-1"], "--max_gradient_norm must be a number above 0; got -1"),
        (["--max_gradient_norm", "nan"], "--max_gradient_norm must be a number above 0; got nan"),
        (["--weight_decay", "-1"], "--weight_decay must be a number from 0 on; got -1"),
        (["--image_size", "16"], "train: image_size must be at least 32; got 16"),
        (["--seed", "-1"], "--seed must be in [0, 2^32); got -1"),
    ],
)
def test_settings_that_make_no_run_are_named(tmp_path, capsys, words, message):
    assert main([*FACES, *words, "--output", str(tmp_path / "run")]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# Start from a checkpoint, repeated sources, pairs of copies ------------------------------------


def test_stage_1_starts_from_the_weights_of_a_checkpoint_and_inherits_its_sources(stage1, tmp_path):
    words = [*FACES, "--mma", str(stage1 / "model")]
    stage = mma_stage(stage_arguments(words, tmp_path / "run"))
    assert same(stage.model.state_dict(), weights(stage1 / "model"))
    assert stage.fingerprint != mma_stage(stage_arguments(FACES, tmp_path / "run")).fingerprint

    first = read_results(stage1 / "results.json")
    assert stage.earlier == [EarlierRun(first.command, first.training.seconds)]
    (stage1_source,) = mma_stage(stage_arguments(FACES, tmp_path / "run")).provenance
    assert stage.provenance == [stage1_source]  # the same drawn faces, named once


def test_a_start_without_results_has_an_unknown_licence(stage1, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(stage1 / "model", bare, ignore=shutil.ignore_patterns("results_*"))
    stage = mma_stage(stage_arguments([*FACES, "--mma", str(bare)], tmp_path / "run"))
    assert [entry.licence for entry in stage.provenance][1:] == ["unknown"]


def test_a_start_with_other_units_is_refused(stage1, tmp_path):
    words = [*FACES, "--mma", str(stage1 / "model"), "--action_units", "1", "12"]
    with pytest.raises(ValueError, match="give --action_units 1 2 4 5"):
        mma_stage(stage_arguments(words, tmp_path / "run"))


@pytest.mark.parametrize("text", ["drawn", "drawn=0", "=2", "drawn=1.5"])
def test_a_repeat_is_a_source_and_a_whole_number(text, tmp_path):
    with pytest.raises(ValueError, match="SOURCE=N"):
        stage_arguments([*FACES, "--repeat", text], tmp_path)


def test_graded_units_record_their_deviations_and_pairs_agree(tmp_path):
    words = [*FACES, "--action_unit_loss", "squared_error", "--consistency_weight", "1"]
    stage = mma_stage(stage_arguments(words, tmp_path / "run"))
    target = presence_target(stage.train.intensity).double().numpy()
    expected = np.nanstd(target, axis=0).clip(min=0.03)
    assert stage.model.config.action_unit_deviations == pytest.approx(expected)

    batch = stage.train_collator([stage.train[0], stage.train[1]])
    assert batch["copy_labels"].tolist() == [0, 0, 1, 1]
    assert len(batch["pixel_values"]) == 4
    assert not torch.equal(batch["pixel_values"][0], batch["pixel_values"][1])
    assert torch.equal(batch["action_unit_labels"][0], batch["action_unit_labels"][1])
    main([*words, "--output", str(tmp_path / "run")])
    assert results_of(tmp_path / "run")["calibration"]["action_unit_scale"] == [1.0] * 17


def test_two_trainings_cannot_use_one_output(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(train.STAGES, "mma", lambda args: None)  # reading data takes longer
    output = tmp_path / "run"
    output.mkdir()
    with locked(output, "taken"):
        assert main(["--stage", "mma", "--data", "drawn", "--output", str(output)]) == 1
    assert "run: another training is at work there" in capsys.readouterr().err
