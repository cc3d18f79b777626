"""Killed at any moment, by any process, a run resumes to the weights it would have had; other runs are not mixed in."""

import json
import logging
import os
import pickle
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from mma_mrnnet.files import MARK, file_digest
from mma_mrnnet.train import main
from mma_mrnnet.training import loop
from mma_mrnnet.training.datasets import FrameDataset

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
FACES += ["--learning_rate", "0.01", "--epochs", "3", "--dropout", "0.2"]


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(value, other[name]) for name, value in one.items()
    )


def stop_after(monkeypatch, updates):
    """Raises after so many updates, as if the process had gone."""
    update = loop.Run.update
    done = []

    def counted(run, batch):
        if len(done) == updates:
            raise RuntimeError("stopped by the test")
        done.append(1)
        return update(run, batch)

    monkeypatch.setattr(loop.Run, "update", counted)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    run = tmp_path_factory.mktemp("straight")
    assert main([*FACES, "--output", str(run)]) == 0
    return run


# In the middle of an epoch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [3, 5, 9])
@pytest.mark.parametrize("workers", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_a_run_cut_off_within_an_epoch_goes_on_within_it(
    straight, tmp_path, monkeypatch, updates, workers
):
    words = [*FACES, "--save_every", "2", "--workers", workers, "--output", str(tmp_path)]
    with monkeypatch.context() as patch:
        stop_after(patch, updates)
        assert main(words) == 1
    # 5 updates of 8 images an epoch, a checkpoint after 2 and 4 of them and between epochs.
    newest = {3: "epoch-0000-items-0000000016", 5: "epoch-0001", 9: "epoch-0001-items-0000000032"}[
        updates
    ]
    assert max(path.name for path in (tmp_path / "checkpoints").iterdir()) == newest
    assert main([*words, "--resume"]) == 0
    assert same(weights(tmp_path / "model"), weights(straight / "model"))
    rows, expected = (
        [
            {**json.loads(line), "seconds": 0}
            for line in (run / "log.jsonl").read_text().splitlines()
        ]
        for run in (tmp_path, straight)
    )
    assert rows == expected


# Other runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning_rate", "0.02"], "--learning_rate 0.01, now 0.02"),
        (["--seed", "1"], "--seed 0, now 1"),
        (["--batch_size", "4"], "--batch_size 8, now 4"),
        (["--items", "48"], "--items 40, now 48"),
    ],
)
def test_other_settings_are_refused_by_name(straight, tmp_path, capsys, words, message):
    run = shutil.copytree(straight, tmp_path / "run")
    assert main([*FACES, *words, "--output", str(run), "--resume"]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "--resume_anyway continues all the same" in said
    assert same(weights(run / "model"), weights(straight / "model"))


def test_one_changed_label_is_refused(straight, tmp_path, capsys, monkeypatch):
    run = shutil.copytree(straight, tmp_path / "run")
    drawn = FrameDataset.__init__

    def changed(rows, *arguments, **settings):
        drawn(rows, *arguments, **settings)
        rows.intensity[3, 4] = 1 - rows.intensity[3, 4]  # one label of one image

    monkeypatch.setattr(FrameDataset, "__init__", changed)
    assert main([*FACES, "--output", str(run), "--resume"]) == 1
    assert "was written with other data or another extractor" in capsys.readouterr().err


def test_other_settings_are_taken_where_asked_for(straight, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "mma_mrnnet")
    run = shutil.copytree(straight, tmp_path / "run")
    assert main([*FACES, "--epochs", "4", "--output", str(run), "--resume_anyway"]) == 0
    assert "--epochs 3, now 4" in caplog.text
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    first_three = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    assert rows[:3] == first_three


def test_a_rate_of_many_digits_is_the_same_rate(tmp_path):
    words = [*FACES, "--epochs", "1", "--learning_rate", "0.00031623", "--output", str(tmp_path)]
    assert main(words) == 0
    assert main([*words, "--resume"]) == 0
    assert (
        json.loads((tmp_path / "results.json").read_text())["arguments"]["learning_rate"]
        == 0.00031623
    )


def test_another_rate_that_is_asked_for_is_taken(straight, tmp_path):
    rates = {}
    for rate in ("0.01", "0.02"):
        run = without_last_checkpoint(straight, tmp_path / rate)
        assert (
            main(
                [
                    *FACES,
                    "--schedule",
                    "cosine",
                    "--learning_rate",
                    rate,
                    "--output",
                    str(run),
                    "--resume_anyway",
                ]
            )
            == 0
        )
        rates[rate] = weights(run / "checkpoints" / "epoch-0003")
    assert same(rates["0.01"], weights(straight / "checkpoints" / "epoch-0003"))
    assert not same(rates["0.01"], rates["0.02"])


def without_last_checkpoint(straight, run):
    """A copy of the run as it was after its second epoch."""
    shutil.copytree(straight, run)
    shutil.rmtree(run / "checkpoints" / "epoch-0003")
    return run


def test_a_best_model_that_a_kill_lost_is_made_again_from_its_checkpoint(straight, tmp_path):
    """Killed after its epoch's checkpoint was written, before the model was."""
    run = shutil.copytree(straight, tmp_path / "run")
    best = json.loads((run / "results.json").read_text())["training"]["best_epoch"]
    for path in sorted((run / "checkpoints").iterdir())[::-1]:
        if path.name != f"epoch-{best:04d}":
            shutil.rmtree(path)
    shutil.rmtree(run / "best")
    assert main([*FACES, "--output", str(run), "--resume"]) == 0
    assert same(weights(run / "model"), weights(straight / "model"))


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.bin", "COMPLETE"])
def test_a_damaged_checkpoint_is_named(straight, tmp_path, capsys, file):
    run = shutil.copytree(straight, tmp_path / "run")
    damaged = run / "checkpoints" / "epoch-0003" / file
    damaged.write_bytes(damaged.read_bytes()[:20])
    assert main([*FACES, "--output", str(run), "--resume"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"train: {damaged.parent}: damaged (")
    assert said.endswith("remove it to continue from the one before")
    shutil.rmtree(damaged.parent)
    assert main([*FACES, "--output", str(run), "--resume"]) == 0
    assert same(weights(run / "model"), weights(straight / "model"))


# A folder of somebody else -----------------------------------------------------------------------


class Touch:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return (Path.touch, (Path(self.mark),))


def change_file(folder, name, content, *, listed=True):
    """Writes a file of a checkpoint, and its digest into the list if an attacker would."""
    (folder / name).write_bytes(content)
    if listed:
        manifest = json.loads((folder / "COMPLETE").read_text("utf-8"))
        manifest["files"][name] = file_digest(folder / name)
        (folder / "COMPLETE").write_text(json.dumps(manifest), "utf-8")


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
@pytest.mark.parametrize(
    "name",
    [
        *("custom_checkpoint_0.pkl", "random_states_0.pkl", "optimizer.bin", "scheduler.bin"),
        *("model.safetensors", "pytorch_model.bin", "progress.json", "sampler.bin"),
    ],
)
def test_no_file_of_a_checkpoint_can_run_code(straight, tmp_path, capsys, name, listed):
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Touch(mark)))  # noqa: S301
    assert mark.exists()  # so the pickle works
    mark.unlink()
    run = without_last_checkpoint(straight, tmp_path / "run")
    change_file(run / "checkpoints" / "epoch-0002", name, pickle.dumps(Touch(mark)), listed=listed)
    done = main([*FACES, "--output", str(run), "--resume"])
    assert not mark.exists()
    harmless = listed and name in ("pytorch_model.bin", "sampler.bin")  # nothing reads them
    assert done == (0 if harmless else 1)
    if done:
        said = capsys.readouterr().err
        assert "epoch-0002: damaged (" in said
        assert "weights_only" not in said  # torch's advice to read it all the same


STATE_FILES = (
    *("model.safetensors", "optimizer.bin", "scheduler.bin", "random_states_0.pkl"),
    "progress.json",
)


@pytest.mark.parametrize("name", STATE_FILES)
@pytest.mark.parametrize("how", ["missing", "missing and not listed", "empty", "empty and listed"])
def test_a_missing_or_empty_state_file_is_damage(straight, tmp_path, capsys, name, how):
    run = without_last_checkpoint(straight, tmp_path / "run")
    folder = run / "checkpoints" / "epoch-0002"
    if how.startswith("empty"):
        change_file(folder, name, b"", listed="listed" in how)
    else:
        (folder / name).unlink()
    if how == "missing and not listed":
        manifest = json.loads((folder / "COMPLETE").read_text("utf-8"))
        del manifest["files"][name]
        (folder / "COMPLETE").write_text(json.dumps(manifest), "utf-8")
    assert main([*FACES, "--output", str(run), "--resume"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"train: {folder}: damaged (")
    assert said.endswith("remove it to continue from the one before")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epoch": "2"}, "progress.json.epoch: must be of type int; got str"),
        ({"epoch": True}, "progress.json.epoch: must be of type int; got bool"),
        ({"epoch": 10**12}, "history is not that of 1000000000000 epochs"),
        ({"items": 10**12, "updates": 5}, "a count is out of range"),
        ({"items": 8, "updates": 0}, "a count is out of range"),
        ({"items": -8, "updates": 1}, "a count is out of range"),
        ({"best_epoch": 3}, "no epoch 3 can be the best"),
        ({"history": []}, "history is not that of 2 epochs"),
        ({"history": "rows"}, "progress.json.history: must be of type list"),
        ({"loss_total": [1.0]}, "progress.json.loss_total: must be of type float"),
        ({"seconds": float("nan")}, "NaN is no number"),
        ({"best_score": float("inf")}, "Infinity is no number"),
        ({"__class__": "os"}, "foreign keys __class__"),
    ],
)
def test_progress_that_no_run_can_have_is_damage(straight, tmp_path, capsys, changes, message):
    run = without_last_checkpoint(straight, tmp_path / "run")
    folder = run / "checkpoints" / "epoch-0002"
    progress = json.loads((folder / "progress.json").read_text("utf-8"))
    change_file(folder, "progress.json", json.dumps({**progress, **changes}).encode())
    assert main([*FACES, "--output", str(run), "--resume"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "damaged (" in said
    assert message in said


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"--seed": 0}, "does not list the files; another version wrote it"),
        ([], "must be an object"),
        ({"settings": {"processes": 10**12}, "files": {}}, "1000000000000 processes"),
        ({"settings": {"processes": "1"}, "files": {}}, "'1' processes"),
        ({"settings": {"processes": 1}, "files": {"../../x": "0"}}, "is missing"),
    ],
)
def test_a_list_of_files_that_no_run_wrote_is_damage(straight, tmp_path, capsys, manifest, message):
    run = without_last_checkpoint(straight, tmp_path / "run")
    (run / "checkpoints" / "epoch-0002" / "COMPLETE").write_text(json.dumps(manifest), "utf-8")
    assert main([*FACES, "--output", str(run), "--resume"]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_resuming_sweeps_nothing_but_what_training_itself_left(straight, tmp_path):
    run = without_last_checkpoint(straight, tmp_path / "run")
    gone = subprocess.Popen(["true"])
    gone.wait()
    ours = run / f"{MARK}0123456789ab-{gone.pid}-01234567"
    ours.mkdir()
    of_the_user = [run / ".env.old", run / ".notes.tmp", run / "checkpoints" / ".mine.tmp"]
    for path in of_the_user[:2]:
        path.write_text("precious", "utf-8")
    (of_the_user[2] / "inside").mkdir(parents=True)
    assert main([*FACES, "--output", str(run), "--resume"]) == 0
    assert all(path.exists() for path in of_the_user)
    assert not ours.exists()


def test_what_no_weight_depends_on_may_change(straight, tmp_path):
    run = without_last_checkpoint(straight, tmp_path / "moved")
    words = [
        "--keep_checkpoints",
        "1",
        "--patience",
        "5",
        "--expect_processes",
        "1",
        "--save_every",
        "2",
    ]
    assert main([*FACES, *words, "--output", str(run), "--resume"]) == 0
    assert same(weights(run / "model"), weights(straight / "model"))


# Two processes, one of them killed ---------------------------------------------------------------------------------

KILLS = int(os.environ.get("KILLS", "3"))  # ten and more by hand: each costs a launch
TWO = [*FACES, "--epochs", "8", "--save_every", "1", "--expect_processes", "2"]


def launch(run, log, *words):
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
    ]
    command += [
        "--num_machines",
        "1",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        "0",
    ]
    command += ["-m", "mma_mrnnet.train", *TWO, "--output", str(run), *words]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        return subprocess.Popen(command, env=environment, stdout=file, stderr=file)


def wait_for_training(launcher, log):
    """Returns when the first rank has taken up its checkpoint, or found none."""
    deadline = time.monotonic() + 120
    while not any(text in log.read_text() for text in ("resumed from", "starting anew")):
        assert launcher.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.02)


def train_and_kill(run, log, moment, rng):
    """Goes on with the run and kills one rank `moment` seconds into the training; False where it ended before."""
    launcher = launch(run, log, "--resume")
    wait_for_training(launcher, log)
    try:
        launcher.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        ranks = [
            child
            for child in psutil.Process(launcher.pid).children(recursive=True)
            if "RANK" in child.environ()
        ]
        rng.choice(ranks).kill()
        assert launcher.wait(timeout=120) != 0
        psutil.wait_procs(ranks, timeout=30)
        assert not any(rank.is_running() for rank in ranks)
        return True
    assert launcher.returncode == 0, log.read_text()[-3000:]
    return False


@pytest.mark.slow
def test_killed_at_random_moments_two_processes_end_with_the_weights_of_an_uninterrupted_run(
    tmp_path,
):
    """Within an epoch, while a checkpoint or the model is written: whenever, whichever of the two."""
    straight, log = tmp_path / "straight", tmp_path / "log"
    launcher = launch(straight, log)
    while not straight.exists() and launcher.poll() is None:
        time.sleep(0.02)
    started = time.monotonic()
    assert launcher.wait(timeout=300) == 0, log.read_text()[-3000:]
    seconds = time.monotonic() - started
    assert json.loads((straight / "results.json").read_text())["training"]["processes"] == 2

    rng, kills, runs = random.Random(0), 0, 0
    while kills < KILLS:
        run = tmp_path / f"run{runs}"
        runs += 1
        while kills < KILLS and train_and_kill(run, log, rng.uniform(0, 0.3 * seconds), rng):
            kills += 1
        # Finishes the run, or sweeps what a kill left of a finished one.
        assert launch(run, log, "--resume").wait(timeout=300) == 0, log.read_text()[-3000:]
        for place in ("model", "best", "checkpoints/epoch-0008"):
            assert same(weights(run / place), weights(straight / place)), (
                f"{place} after {kills} kills"
            )
        left = [path for path in run.rglob("*") if path.name.startswith(MARK)]
        assert not left
