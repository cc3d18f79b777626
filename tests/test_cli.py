"""What the command line promises: exit codes, one clear line a failure, results on stdout, notes beside."""

import contextlib
import io
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import threading
import time
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from packaging.requirements import Requirement
from skimage.data import astronaut

from mma_mrnnet import cli
from mma_mrnnet.cli.journal import Journal
from mma_mrnnet.cli.options import EXTRAS
from mma_mrnnet.tables import cells
from mma_mrnnet.video.writing import write_video
from mma_mrnnet.workers import Lost, run_tasks

FACE = cv2.resize(astronaut()[:256, 96:352], (160, 160), interpolation=cv2.INTER_AREA)
GREY = np.full_like(FACE, 128)
REACTIONS = ["Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise"]
RESULT_LINE = re.compile(
    r".+: \d+\.\d s, a face in \d+ of \d+ frames|  [\w-]+ +[01]\.\d\d  #{0,20}"
)


pytestmark = pytest.mark.usefixtures("settings_kept")


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path):
    folder = tmp_path / "checkpoint"
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture
def clips(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    write_video(folder / "b.mp4", [FACE] * 4, 4)
    write_video(folder / "a.mp4", [FACE] * 2, 4)
    return folder


@pytest.fixture
def run(capsys):
    """Runs a command: exit code, stdout's lines, stderr's lines; checks that stdout holds results alone."""

    def command(*words):
        capsys.readouterr()
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out.splitlines(), err.splitlines()

    return command


@pytest.fixture
def predict(run, checkpoint):
    def command(*words):
        code, out, err = run("predict", *words, "--model", checkpoint)
        assert all(RESULT_LINE.fullmatch(line) for line in out)
        return code, out, err

    return command


def headings(lines):
    return [line for line in lines if not line.startswith("  ")]


# ---- predict: what goes well


def test_a_file_gives_its_seven_intensities_and_exit_code_0(predict, clips):
    code, out, err = predict(clips / "b.mp4")
    assert code == 0
    assert out[0] == f"{clips / 'b.mp4'}: 1.0 s, a face in 2 of 2 frames"
    assert [line.split()[0] for line in out[1:]] == REACTIONS
    assert (
        err[0]
        == f"mma-mrnnet: {clips / 'b.mp4'}: rests on 2 frames with a face: too few to rely on"
    )
    assert all(line.startswith("note: ") for line in err[1:])


def test_a_folder_is_searched_below_and_in_order(predict, clips):
    (clips / "deep").mkdir()
    write_video(clips / "deep" / "c.MP4", [FACE], 4)
    (clips / "notes.txt").write_text("no video")
    code, out, _ = predict(clips)
    assert code == 0
    assert [line.split(": ")[0] for line in headings(out)] == [
        str(clips / name) for name in ("a.mp4", "b.mp4", "deep/c.MP4")
    ]


def test_a_quoted_pattern_is_spelt_out(predict, clips):
    code, out, _ = predict(clips / "*.mp4")
    assert code == 0
    assert [line.split(": ")[0] for line in headings(out)] == [
        str(clips / "a.mp4"),
        str(clips / "b.mp4"),
    ]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(predict, clips):
    (clips / "a.mp4").rename(clips / "a[1].mp4")
    code, out, _ = predict(clips / "a[1].mp4")
    assert (code, len(headings(out))) == (0, 1)


def test_a_file_named_twice_is_done_once_where_it_came_first(predict, clips, monkeypatch):
    monkeypatch.chdir(clips)
    code, out, _ = predict("b.mp4", "./b.mp4", clips / "b.mp4", ".", "*.mp4", clips)
    assert code == 0
    assert [line.split(": ")[0] for line in headings(out)] == ["b.mp4", "a.mp4"]


def test_tables_are_written_as_their_endings_say(predict, clips, tmp_path):
    results, frames = tmp_path / "results.json", tmp_path / "frames.parquet"
    code, _, err = predict(clips, "--out", results, "--frames", frames)
    assert code == 0
    assert {f"wrote {results}", f"wrote {frames}"} <= set(err)
    rows = json.loads(results.read_text("utf-8"))
    assert [row["file"] for row in rows] == [str(clips / "a.mp4"), str(clips / "b.mp4")]
    assert all(row["error"] is None and 0 <= row[name] <= 1 for row in rows for name in REACTIONS)
    read = pd.read_parquet(frames)
    assert read["file"].tolist() == [str(clips / "a.mp4")] + [str(clips / "b.mp4")] * 2
    assert read["frame"].tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    ("rate", "frames"), [(None, [0, 2]), ("native", [0, 1, 2, 3]), ("1", [0]), ("4", [0, 1, 2, 3])]
)
def test_fps_decides_on_the_rows_of_the_frames_table_alone(predict, clips, tmp_path, rate, frames):
    tables = "--out", tmp_path / "results.csv", "--frames", tmp_path / "frames.csv"
    predict(clips / "b.mp4", "--out", tmp_path / "usual.csv")
    assert predict(clips / "b.mp4", *tables, *(() if rate is None else ("--fps", rate)))[0] == 0
    assert pd.read_csv(tmp_path / "frames.csv")["frame"].tolist() == frames
    usual, other = (
        pd.read_csv(tmp_path / name)[REACTIONS] for name in ("usual.csv", "results.csv")
    )
    pd.testing.assert_frame_equal(usual, other, rtol=0, atol=0)


# ---- predict: what must be said


def test_an_uncalibrated_checkpoint_says_so_and_is_not_ranked(predict, clips):
    _, out, err = predict(clips / "b.mp4")
    assert [line.split()[0] for line in out[1:]] == REACTIONS
    assert any("not calibrated" in line for line in err)


def test_a_calibrated_checkpoint_is_ranked(predict, clips, tiny_model, checkpoint):
    tiny_model.set_calibration(torch.ones(7), torch.linspace(-0.3, 0.3, 7))
    tiny_model.save_pretrained(checkpoint)
    _, out, err = predict(clips / "b.mp4")
    values = [float(line.split()[1]) for line in out[1:]]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]
    assert not any("not calibrated" in line for line in err)


@pytest.mark.parametrize("simulated", [True, False])
@pytest.mark.parametrize("relative", [True, False])
def test_notes_say_where_the_labels_came_from(
    predict, clips, tiny_model, checkpoint, simulated, relative
):
    tiny_model.config.simulated_labels, tiny_model.config.relative_labels = simulated, relative
    tiny_model.save_pretrained(checkpoint)
    _, _, err = predict(clips / "a.mp4")
    assert any(line.startswith("note: ") and "simulator" in line for line in err) == simulated
    assert (
        any(line.startswith("note: ") and "relative within the clip" in line for line in err)
        == relative
    )


# ---- predict: what fails


def test_a_failed_clip_among_good_ones_gets_its_error_and_the_others_their_numbers(
    predict, clips, tmp_path
):
    (clips / "aa.mp4").write_text("plain text")
    write_video(clips / "ab.mp4", [GREY] * 4, 4)
    code, out, err = predict(
        clips, "--out", tmp_path / "results.csv", "--frames", tmp_path / "frames.csv"
    )
    assert code == 1
    assert len(headings(out)) == 2
    assert any(
        line.startswith(f"mma-mrnnet: {clips / 'aa.mp4'}: is text, not a video") for line in err
    )
    assert f"mma-mrnnet: {clips / 'ab.mp4'}: no face in this video" in err
    rows = pd.read_csv(tmp_path / "results.csv").set_index("file")
    assert list(rows.index) == [
        str(clips / name) for name in ("a.mp4", "aa.mp4", "ab.mp4", "b.mp4")
    ]
    assert rows["error"].isna().tolist() == [True, False, False, True]
    assert rows[REACTIONS].isna().all(axis=1).tolist() == [False, True, True, False]
    assert rows["frames_sampled"].tolist() == [1, 0, 2, 2]
    assert rows["duration_s"].isna().tolist() == [False, True, False, False]
    frames = pd.read_csv(tmp_path / "frames.csv")
    assert frames["file"].value_counts().to_dict() == {
        str(clips / "b.mp4"): 2, str(clips / "ab.mp4"): 2, str(clips / "a.mp4"): 1
    }  # fmt: skip


def write_sound(path):
    with av.open(str(path), "w", format="wav") as container:
        sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(sound.encode(frame))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("text", "is text, not a video"),
        ("empty", r"is empty \(0 bytes\)"),
        ("sound", r"holds no video stream \(found: audio\)"),
    ],
)
def test_a_file_that_is_no_video_is_one_line_and_exit_code_1(
    predict, clips, monkeypatch, content, message
):
    monkeypatch.chdir(clips)
    if content == "text":
        (clips / "x.mp4").write_text("plain text")
    elif content == "empty":
        (clips / "x.mp4").touch()
    elif content == "sound":
        write_sound(clips / "x.mp4")
    code, out, err = predict("./x.mp4")
    assert (code, out) == (1, [])
    (line,) = [line for line in err if not line.startswith("note: ")]
    assert re.match(rf"mma-mrnnet: x\.mp4: {message}", line)
    assert line.count("x.mp4") == 1


def test_when_all_clips_fail_the_frames_table_still_has_its_columns(predict, clips, tmp_path):
    code, _, _ = predict(clips / "none.mp4", "--frames", tmp_path / "frames.parquet")
    read = pd.read_parquet(tmp_path / "frames.parquet")
    assert (code, len(read), read.columns[4]) == (1, 0, "face")


@pytest.mark.parametrize("ending", ["csv", "json", "parquet"])
def test_a_name_that_is_no_utf8_does_not_cost_the_table(predict, clips, tmp_path, ending):
    odd = "odd\udcff.mp4"  # how Python spells the byte ff of a file name
    code, _, _ = predict(clips / "a.mp4", odd, "--out", tmp_path / f"results.{ending}")
    read = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}[ending]
    assert code == 1
    assert read(tmp_path / f"results.{ending}")["file"].tolist() == [
        str(clips / "a.mp4"),
        r"odd\udcff.mp4",
    ]


@pytest.mark.parametrize("word", ["folder", "*.mov"])
def test_a_folder_or_pattern_without_videos_is_one_line_and_exit_code_1(predict, tmp_path, word):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").touch()
    code, out, err = predict(tmp_path / word)
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"mma-mrnnet: {tmp_path / word}: no clip here; looked for ")


@pytest.mark.parametrize("kind", ["empty", "config", "weights", "stage 1", "missing"])
def test_a_checkpoint_that_cannot_be_loaded_is_one_line_and_exit_code_1(
    run, clips, tmp_path, checkpoint, tiny_mma, kind
):
    if kind == "empty":
        checkpoint = tmp_path / "empty"
        checkpoint.mkdir()
    elif kind == "missing":
        checkpoint = tmp_path / "missing"
    elif kind == "config":
        (checkpoint / "config.json").write_text('{"model_type": ')
    elif kind == "weights":
        weights = checkpoint / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
    else:
        tiny_mma.save_pretrained(checkpoint)
    code, out, err = run("predict", clips, "--model", checkpoint)
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"mma-mrnnet: {checkpoint}: ")


@pytest.mark.parametrize("option", ["--out", "--frames"])
@pytest.mark.parametrize("name", ["results.xlsx", "results", "none/results.csv", "clips"])
def test_a_table_that_could_not_be_written_stops_before_any_work(
    predict, clips, tmp_path, monkeypatch, option, name
):
    monkeypatch.setattr(cli.predict, "predict_one", lambda *_: pytest.fail("work was begun"))
    code, out, err = predict(clips, option, tmp_path / name)
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"mma-mrnnet: {tmp_path / name}: ")


def test_both_tables_in_one_file_are_refused_before_any_work(predict, clips, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.predict, "predict_one", lambda *_: pytest.fail("work was begun"))
    code, _, err = predict(clips, "--out", tmp_path / "t.csv", "--frames", clips / ".." / "t.csv")
    assert (code, len(err)) == (1, 1)
    assert "--out and --frames" in err[0]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--fps", "0"),
        ("--fps", "-1"),
        ("--fps", "abc"),
        ("--fps", "nan"),
        ("--fps", "inf"),
        ("--threads", "0"),
        ("--threads", "-2"),
        ("--threads", "1.5"),
    ],
)
def test_a_number_that_cannot_be_is_refused_with_exit_code_2(run, option, value):
    code, out, err = run("predict", "clip.mp4", option, value)
    assert (code, out) == (2, [])
    assert re.search(rf"error: argument {option}: must be a .*number.*; got '{value}'$", err[-1])


@pytest.mark.parametrize("name", ["cuda", "nonsense", "meta"])
def test_a_device_that_is_not_there_is_one_line_and_exit_code_1(predict, clips, name):
    if name == "cuda" and torch.cuda.is_available():
        name = "cuda:99"
    code, out, err = predict(clips / "a.mp4", "--device", name)
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"mma-mrnnet: --device {name}: not available here (")


def test_an_interruption_keeps_what_was_done(predict, clips, tmp_path, monkeypatch):
    whole = cli.predict.predict_one

    def interrupted(clip, *others):
        if clip.endswith("b.mp4"):
            raise KeyboardInterrupt
        return whole(clip, *others)

    monkeypatch.setattr(cli.predict, "predict_one", interrupted)
    code, _, err = predict(clips, "--out", tmp_path / "results.csv")
    assert code == 130
    assert "mma-mrnnet: interrupted after 1 of 2 clips" in err
    assert pd.read_csv(tmp_path / "results.csv")["file"].tolist() == [str(clips / "a.mp4")]


def run_into_a_closed_pipe(*words):
    """The exit code of a command whose standard output is what `| head` leaves: a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe, contextlib.redirect_stdout(pipe):
        return cli.main([str(word) for word in words])


def test_a_reader_that_left_does_not_cost_the_table(checkpoint, clips, tmp_path):
    words = ["predict", clips, "--model", checkpoint, "--out", tmp_path / "results.csv"]
    assert run_into_a_closed_pipe(*words) == 0
    assert len(pd.read_csv(tmp_path / "results.csv")) == 2


def test_a_reader_that_left_ends_the_work_where_no_table_is_wanted(checkpoint, clips, monkeypatch):
    begun = []
    whole = cli.predict.predict_one
    monkeypatch.setattr(
        cli.predict, "predict_one", lambda clip, *others: begun.append(clip) or whole(clip, *others)
    )
    assert run_into_a_closed_pipe("predict", clips, "--model", checkpoint) == 0
    assert begun == [str(clips / "a.mp4")]


# ---- predict: several people, a person's own neutral, windows


@pytest.fixture
def two_people(tmp_path):
    """Two frames a second for 4 s: a larger face that leaves after 2 s, a smaller one that stays."""
    images = []
    for number in range(8):
        image = np.full((160, 400, 3), 128, np.uint8)
        image[:128, :128] = cv2.resize(FACE, (128, 128), interpolation=cv2.INTER_AREA)
        if number < 4:
            image[:, 240:] = FACE
        images.append(image)
    return write_video(tmp_path / "two.mp4", images, 2)


def test_a_clip_with_two_people_says_so_and_all_faces_shows_both(
    predict, run, checkpoint, two_people, tmp_path
):
    code, out, err = predict(two_people)
    assert code == 0
    assert headings(out) == [f"{two_people}: 4.0 s, a face in 8 of 8 frames"]
    said = [line for line in err if "people were seen" in line]
    assert said == [
        f"mma-mrnnet: {two_people}: 2 people were seen; this is who is in most frames, --all-faces shows the others"
    ]
    tables = ["--out", tmp_path / "people.csv", "--frames", tmp_path / "frames.csv"]
    code, out, err = run("predict", two_people, "--all-faces", *tables, "--model", checkpoint)
    assert code == 0
    assert headings(out) == [
        f"{two_people}, track 0: 4.0 s, a face in 8 of 8 frames",
        f"{two_people}, track 1: 4.0 s, a face in 4 of 8 frames",
    ]
    assert not [line for line in err if "people were seen" in line]
    rows, frames = pd.read_csv(tmp_path / "people.csv"), pd.read_csv(tmp_path / "frames.csv")
    assert rows[["track", "frames_with_face"]].to_numpy().tolist() == [[0, 8], [1, 4]]
    assert frames.groupby("track")["face"].sum().tolist() == [8, 4]


def test_an_own_neutral_is_shown_with_what_it_changed(run, checkpoint, two_people, tmp_path):
    words = ["predict", two_people, "--model", checkpoint]
    _, plain, _ = run(*words)
    code, out, err = run(*words, "--neutral", "0:1", "--out", tmp_path / "one.csv")
    assert code == 0
    assert (
        f"mma-mrnnet: {two_people}: the person's own neutral from 0 to 1 s was taken out"
        in "\n".join(err)
    )
    without = [re.sub(r" +[\d.]+ \(([\d.]+)\) .*", r" \1", line).split() for line in out[1:]]
    assert without == [line.split()[:2] for line in plain[1:]]
    (row,) = pd.read_csv(tmp_path / "one.csv").to_dict("records")
    assert (row["neutral_start_s"], row["neutral_end_s"]) == (0, 1)
    assert [f"{row[f'{name}_uncorrected']:.2f}" for name in REACTIONS] == [
        value for _, value in without
    ]
    assert "own neutral from 0 to 1 s" in row["note"]


def test_a_neutral_stretch_without_the_persons_face_fails_that_person(run, checkpoint, two_people):
    words = ["predict", two_people, "--model", checkpoint, "--all-faces", "--neutral", "2:3"]
    code, out, err = run(*words)
    assert code == 1
    assert headings(out) == [f"{two_people}, track 0: 4.0 s, a face in 8 of 8 frames"]
    reason = "no face of this person from 2 to 3 s, which is to be their neutral"
    assert f"mma-mrnnet: {two_people}, track 1: {reason}" in err


def test_windows_are_a_table_of_their_own(predict, two_people, tmp_path):
    # The tiny model reads 4 frames, 2 s. Windows of 1 s start at 0, 1, 2 and 3: that one reaches the last frame, 3.5 s.
    code, _, err = predict(two_people, "--windows", tmp_path / "windows.csv", "--window", 1)
    assert code == 0
    assert f"wrote {tmp_path / 'windows.csv'}" in err
    windows = pd.read_csv(tmp_path / "windows.csv")
    assert windows.columns.tolist() == [
        "file",
        "track",
        "start_s",
        "end_s",
        "frames_with_face",
        *REACTIONS,
    ]
    assert windows["start_s"].tolist() == [0, 1, 2, 3]
    assert windows["frames_with_face"].tolist() == [2, 2, 2, 2]
    predict(two_people, "--windows", tmp_path / "windows.csv", "--hop", 0.5)
    assert pd.read_csv(tmp_path / "windows.csv")["end_s"].tolist() == [
        2,
        2.5,
        3,
        3.5,
        4,
    ]  # 2 s are all that fits


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--hop", "1"], "--window and --hop need --windows FILE"),
        (["--windows", "w.csv", "--fps", "1"], "leave --fps out, or give native"),
        (
            ["--windows", "w.csv", "--window", "3"],
            "--window 3: this model reads at most 2 s at once",
        ),
        (["--windows", "w.csv", "--out", "w.csv"], "--out and --windows need a file each"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    predict, clips, monkeypatch, tmp_path, words, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.predict, "predict_one", lambda *_: pytest.fail("work was begun"))
    code, out, err = predict(clips / "b.mp4", *words)
    assert (code, out, len(err)) == (1, [], 1)
    assert message in err[0]


@pytest.mark.parametrize("word", ["2", "2:1", "-1:2", "a:b", "0:inf", "calm"])
def test_a_neutral_that_is_no_stretch_is_refused_by_name(run, clips, word):
    code, _, err = run("predict", clips / "b.mp4", f"--neutral={word}")
    assert code == 2
    assert "argument --neutral: must be START:END in seconds, such as 0:2, or auto" in err[-1]


# ---- the words


def test_no_words_print_the_help_and_give_exit_code_2(run):
    code, out, _ = run()
    assert code == 2
    assert out[0].startswith("usage: mma-mrnnet")
    assert all(any(name in line for line in out) for name in cli.COMMANDS)


def test_an_unknown_command_gives_exit_code_2(run):
    code, out, err = run("guess")
    assert (code, out) == (2, [])
    assert "invalid choice: 'guess'" in err[-1]


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_help_of_each_command_shows_an_example_that_parses(run, command):
    code, out, _ = run(command, "--help")
    assert code == 0
    joined = "\n".join(out).replace("\\\n", "").splitlines()
    examples = [
        shlex.split(line.split("#")[0])
        for line in joined
        if line.startswith(f"  mma-mrnnet {command} ")
    ]
    assert examples
    for example in examples:
        assert cli.parse_words(example[1:])[0] == command


def test_json_is_one_line_a_person_with_what_the_prediction_says(run, checkpoint, clips):
    code, out, err = run("predict", clips, "--model", checkpoint, "--json")
    assert code == 0
    first, second = map(json.loads, out)
    assert [Path(first["file"]).name, Path(second["file"]).name] == ["a.mp4", "b.mp4"]
    assert set(first["intensities"]) == set(REACTIONS)
    assert len(second["frames"]) == second["frames_sampled"] == 2
    assert any(line.startswith("note: ") for line in err)


def test_a_clip_that_fails_is_a_line_of_json_without_numbers(run, checkpoint, tmp_path):
    (tmp_path / "bad.mp4").write_text("plain text")
    code, out, _ = run("predict", tmp_path / "bad.mp4", "--model", checkpoint, "--json")
    (line,) = map(json.loads, out)
    assert code == 1
    assert line["error"]
    assert set(line["intensities"].values()) == {None}


@pytest.mark.parametrize("place", [0, 1, 4])
def test_quiet_leaves_results_and_errors(run, checkpoint, clips, tmp_path, monkeypatch, place):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    (clips / "c.mp4").write_text("plain text")
    words = ["predict", clips, "--model", checkpoint, "--out", tmp_path / "results.csv"]
    code, out, err = run(*words)
    assert any(line.startswith(("note: ", "wrote ")) for line in err)
    quiet = run(*words[:place], "-q", *words[place:])
    assert quiet[:2] == (code, out)
    assert quiet[2] == [line for line in err if line.startswith("mma-mrnnet")]
    assert "c.mp4" in quiet[2][-1]
    assert any(line.startswith("note: ") for line in run(*words)[2])  # of that run alone
    monkeypatch.delenv("TQDM_DISABLE")


def test_train_hands_its_words_to_the_training_script(run, monkeypatch):
    import mma_mrnnet.train

    given = []
    monkeypatch.setattr(mma_mrnnet.train, "main", lambda words: given.append(words) or 7)
    assert run("train", "--stage", "mma", "--features", "a", "b", "--data=x")[0] == 7
    assert run("train", "--", "--help")[0] == 7
    assert given == [["--stage", "mma", "--features", "a", "b", "--data=x"], ["--help"]]


@pytest.mark.parametrize(("module", "extra"), [("datasets", "train"), ("skimage.data", "demo")])
def test_a_missing_extra_is_one_line_with_the_command(run, monkeypatch, module, extra):
    import mma_mrnnet.train

    def fail(words):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(mma_mrnnet.train, "main", fail)
    code, out, err = run("train", "--stage", "mma")
    name = module.partition(".")[0]
    assert (code, out) == (1, [])
    assert err == [f"mma-mrnnet: {name} is not installed: pip install 'mma-mrnnet[{extra}]'"]


def test_another_missing_module_is_an_error_of_the_program(monkeypatch):
    import mma_mrnnet.train

    def fail(words):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(mma_mrnnet.train, "main", fail)
    with pytest.raises(ModuleNotFoundError, match="torch"):
        cli.main(["train", "--stage", "mma"])


def test_each_extra_that_is_named_exists_and_brings_its_module():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    base = {Requirement(line).name for line in project["dependencies"]}
    homes = packages_distributions()
    for module, extra in EXTRAS.items():
        names = {Requirement(line).name for line in project["optional-dependencies"][extra]}
        if module in homes:  # installed here, so that the name of its distribution is known
            assert {name.lower() for name in homes[module]} & names, module
        assert not names & base, extra


def test_a_parquet_table_without_pyarrow_is_refused_before_any_work(
    predict, clips, tmp_path, monkeypatch
):
    monkeypatch.setattr(cells, "find_spec", lambda name: None)
    code, out, err = predict(clips, "--out", tmp_path / "r.parquet")
    assert (code, out) == (1, [])
    assert "pip install 'mma-mrnnet[train]'" in err[-1]


# ---- export


def test_export_writes_a_folder_and_refuses_one_that_holds_something(run, checkpoint, tmp_path):
    code, out, _ = run("export", checkpoint, tmp_path / "model")
    assert code == 0
    assert out[0].startswith(f"wrote {tmp_path / 'model'}: ")
    assert (tmp_path / "model" / "README.md").is_file()
    code, out, err = run("export", checkpoint, tmp_path / "model")
    assert (code, out, len(err)) == (1, [], 1)
    assert "is not an empty folder" in err[0]


# ---- as a process


@pytest.mark.slow
def test_a_real_process_keeps_results_on_stdout_and_all_else_on_stderr(clips, tmp_path):
    (clips / "bad.mp4").write_text("plain text")
    words = [
        sys.executable,
        "-m",
        "mma_mrnnet.cli",
        "predict",
        str(clips),
        "--out",
        str(tmp_path / "results.csv"),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert len(headings(lines)) == 2
    assert all(RESULT_LINE.fullmatch(line) for line in lines)
    assert all(
        line.startswith(("mma-mrnnet: ", "note: ", "wrote ")) for line in done.stderr.splitlines()
    )
    assert len(pd.read_csv(tmp_path / "results.csv")) == 3


def test_hidden_files_of_a_folder_are_no_clips(tmp_path, tiny_config):
    (tmp_path / "._clip.mp4").write_bytes(b"resource fork")
    (tmp_path / "clip.mp4").write_bytes(b"")
    assert cli.predict.find_clips([str(tmp_path)], tiny_config) == [str(tmp_path / "clip.mp4")]


def test_a_table_that_cannot_be_written_does_not_cost_the_other_one(
    predict, clips, tmp_path, monkeypatch
):
    real = cells.write_table

    def full_disk(table, path):
        if path.name == "out.csv":
            raise OSError("No space left on device")
        real(table, path)

    monkeypatch.setattr(cells, "write_table", full_disk)
    words = ["--out", tmp_path / "out.csv", "--frames", tmp_path / "frames.csv"]
    code, out, err = predict(clips / "a.mp4", *words)
    assert (code, len(headings(out))) == (1, 1)
    assert err[-1] == (f"mma-mrnnet: {tmp_path / 'out.csv'}: not written: No space left on device")
    assert len(pd.read_csv(tmp_path / "frames.csv")) == 1


@pytest.mark.parametrize("option", ["--windows", "--report"])
def test_an_error_in_one_output_of_one_clip_costs_neither_the_other_clips_nor_the_other_outputs(
    predict, clips, tmp_path, monkeypatch, option
):
    from mma_mrnnet.prediction import streaming
    from mma_mrnnet.report import page

    target = tmp_path / ("windows.csv" if option == "--windows" else "page.html")
    module, name = (
        (streaming, "sliding_windows") if option == "--windows" else (page, "clip_section")
    )
    whole = getattr(module, name)
    calls = []

    def fails_at_first(*args):
        calls.append(args)
        if len(calls) == 1:
            raise MemoryError
        return whole(*args)

    monkeypatch.setattr(module, name, fails_at_first)
    code, out, err = predict(clips, "--out", tmp_path / "out.csv", option, target)
    assert (code, len(headings(out)), len(calls)) == (1, 2, 2)
    assert len(pd.read_csv(tmp_path / "out.csv")) == 2
    assert "b.mp4" in target.read_text("utf-8")
    assert err[-1] == f"mma-mrnnet: {target}: without {clips / 'a.mp4'}: MemoryError"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict"], "mma-mrnnet predict: error: the following arguments are required: clips"),
        (["predict", "a", "--what"], "mma-mrnnet predict: error: unrecognized arguments: --what"),
        (["predict", "a", "--out"], "mma-mrnnet predict: error: argument --out: expected a value"),
        (
            ["predict", "a", "--out", "--threads", "1"],
            "mma-mrnnet predict: error: argument --out: expected a value",
        ),
        (
            ["ablate", "--out", "x", "--data", "simulated"],
            "mma-mrnnet ablate: error: unrecognized arguments: --data; words of train.py stand behind --",
        ),
        (
            ["evaluate", "--data", "x", "--out", "y", "--pictures"],
            "mma-mrnnet evaluate: error: argument --pictures: expected a value",
        ),
        (
            ["draw", "x", "--clips", "1", "0", "1"],
            "mma-mrnnet draw: error: argument --clips: must be a whole number of at least 1; got '0'",
        ),
    ],
)
def test_wrong_words_are_one_line_behind_the_usage_and_exit_code_2(run, words, message):
    code, out, err = run(*words)
    assert (code, out) == (2, [])
    assert err[0].startswith(f"usage: mma-mrnnet {words[0]} [OPTIONS]")
    assert err[-1] == message


def test_an_option_takes_several_values_behind_its_name():
    words = ["evaluate", "model", "--pictures", "warp", "render", "--data", "d", "--out", "o"]
    _, values = cli.parse_words(words)
    assert (values["pictures"], values["model"], values["data"]) == (
        ["warp", "render"],
        "model",
        "d",
    )


def test_words_behind_two_dashes_belong_to_train_py():
    words = ["ablate", "--out", "o", "--transfer", "a", "b", "--", "--data", "d", "--transfer", "c"]
    _, values = cli.parse_words(words)
    assert values["transfer"] == ["a", "b"]
    assert values["words"] == ["--data", "d", "--transfer", "c"]


def test_a_folder_that_takes_no_files_is_refused_before_any_work(predict, clips, capsys):
    code, out, err = predict(clips / "b.mp4", "--out", "/proc/results.csv")
    assert code == 1
    assert out == []
    assert "cannot be written" in err[0]


# ---- odd names, links, pipes, sources


def test_a_name_that_no_file_can_have_fails_alone(predict, clips, tmp_path):
    code, out, err = predict("x" * 300, clips / "a.mp4", "--out", tmp_path / "out.csv")
    assert (code, len(headings(out))) == (1, 1)
    assert any(line.startswith("mma-mrnnet: " + "x" * 300 + ": ") for line in err)
    assert pd.read_csv(tmp_path / "out.csv")["error"].isna().tolist() == [False, True]


def test_a_gap_of_months_makes_few_windows_and_harms_no_other_clip(
    predict, clips, shared_faulty, tmp_path
):
    tables = "--windows", tmp_path / "windows.csv", "--window", 1, "--out", tmp_path / "out.csv"
    code, out, _ = predict(shared_faulty / "gap20000000.mkv", clips / "b.mp4", *tables)
    assert (code, len(headings(out)), len(pd.read_csv(tmp_path / "out.csv"))) == (0, 2, 2)
    windows = pd.read_csv(tmp_path / "windows.csv")
    assert len(windows) < 20
    assert (windows["frames_with_face"] > 0).all()
    assert set(windows["file"]) == {str(shared_faulty / "gap20000000.mkv"), str(clips / "b.mp4")}


def test_control_characters_of_a_name_reach_the_terminal_as_escapes(predict, clips, tmp_path):
    odd = clips / "red\x1b[31m\nnext.mp4"
    (clips / "a.mp4").rename(odd)
    code, out, err = predict(clips, tmp_path / "no\x07file.mp4", "--out", tmp_path / "out.csv")
    assert code == 1
    assert headings(out)[1].startswith(rf"{clips}/red\x1b[31m\nnext.mp4: ")
    assert any(r"no\x07file.mp4: no such file" in line for line in err)
    assert not any("\x1b" in line or "\x07" in line for line in [*out, *err])


def test_letters_that_stdout_cannot_hold_are_escaped(predict, clips, monkeypatch):
    (clips / "a.mp4").rename(clips / "mélange.mp4")
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr(sys, "stdout", ascii_only)
    assert predict(clips)[0] == 0
    text = ascii_only.buffer.getvalue().decode("ascii")
    assert f"{clips}/b.mp4: 1.0 s" in text
    assert rf"{clips}/m\xe9lange.mp4: 0.5 s" in text


def test_a_full_disk_behind_stdout_does_not_cost_the_table(checkpoint, clips, tmp_path, capsys):
    words = ["predict", clips, "--model", checkpoint, "--out", tmp_path / "results.csv"]
    with Path("/dev/full").open("w") as full, contextlib.redirect_stdout(full):
        assert cli.main([str(word) for word in words]) == 1
    assert len(pd.read_csv(tmp_path / "results.csv")) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "mma-mrnnet: standard output: not written: No space left on device"


def test_a_link_that_is_given_as_out_is_followed(predict, clips, tmp_path):
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    assert predict(clips / "a.mp4", "--out", link)[0] == 0
    assert link.is_symlink()
    assert len(pd.read_csv(target)) == 1


def test_a_named_pipe_that_is_given_as_out_is_written_into(predict, clips, tmp_path):
    pipe, read = tmp_path / "pipe.csv", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text("utf-8")), daemon=True)
    reader.start()
    assert predict(clips / "a.mp4", "--out", pipe)[0] == 0
    reader.join(20)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert read[0].splitlines()[1].startswith(str(clips / "a.mp4"))


def test_a_home_folder_and_a_file_url_are_paths(predict, clips, monkeypatch):
    monkeypatch.setenv("HOME", str(clips.parent))
    (clips / "b.mp4").rename(clips / "b c.mp4")
    code, out, _ = predict("~/clips/a.mp4", f"file://{clips}/b%20c.mp4", "~/clips/*.mp4")
    assert code == 0
    assert [line.split(": ")[0] for line in headings(out)] == [
        str(clips / "a.mp4"),
        str(clips / "b c.mp4"),
    ]


def test_addresses_stay_as_they_are(tiny_config):
    words = ["https://x.org/a.mp4?sig=*", "hf://buckets/me/a.mp4", "zip://a.mp4::b.zip"]
    assert cli.predict.find_clips([*words, words[0]], tiny_config) == words


def test_a_clip_inside_an_archive_is_read_and_an_address_shows_no_secret(predict, clips, tmp_path):
    archive = tmp_path / "clips.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(clips / "a.mp4", "deep/a.mp4")
    inside, secret = f"zip://deep/a.mp4::{archive}", "http://me:pw@127.0.0.1:9/a.mp4?sig=SECRET"
    code, out, err = predict(inside, secret, "--out", tmp_path / "out.csv")
    assert code == 1
    assert headings(out) == [f"{inside}: 0.5 s, a face in 1 of 1 frames"]
    files = pd.read_csv(tmp_path / "out.csv")["file"].tolist()
    assert files == [inside, "http://127.0.0.1:9/a.mp4"]
    assert not any("SECRET" in line or "pw" in line for line in err)


def test_a_revision_needs_a_repository_and_reaches_the_loader(run, clips, monkeypatch):
    code, _, err = run("predict", clips / "a.mp4", "--revision", "v1")
    assert (code, err[0]) == (1, "mma-mrnnet: --revision needs --model, a repository on the Hub")
    asked = []

    def load(*words):
        asked.append(words)
        raise ValueError("not here")

    monkeypatch.setattr("mma_mrnnet.prediction.torch_engine.load_either", load)
    for command in (["predict", clips / "a.mp4"], ["compare", clips / "a.mp4", clips / "b.mp4"]):
        code, _, err = run(*command, "--model", "me/my-model", "--revision", "v1")
        assert (code, err) == (1, ["mma-mrnnet: not here"])
    assert asked == [("me/my-model", "v1")] * 2


# ---- predict --workers


def start_predict(clips, out, checkpoint, *words):
    """Start `predict --workers 2` as a process of its own."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "mma_mrnnet.cli", "predict", str(clips), "--out", str(out)),
            *("--model", str(checkpoint), "--workers", "2", *words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines_of(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_workers_write_the_tables_of_one_process_and_go_on_after_a_kill(
    predict, checkpoint, clips, tmp_path
):
    for name in "cdef":
        write_video(clips / f"{name}.mp4", [FACE] * 8, 4)
    (clips / "broken.mp4").write_bytes(b"no video")
    plain, whole = tmp_path / "plain.parquet", tmp_path / "whole.parquet"
    frames = tmp_path / "frames.parquet", tmp_path / "frames_2.parquet"
    assert predict(clips, "--out", plain, "--frames", frames[0])[0] == 1
    journal = tmp_path / "whole.parquet.journal"

    process = start_predict(clips, whole, checkpoint, "--frames", frames[1])
    while process.poll() is None and lines_of(journal) < 4:  # settings and three clips
        time.sleep(0.005)
    process.kill()
    process.communicate()
    kept = lines_of(journal)
    assert kept >= 4
    assert not whole.exists()
    with journal.open("ab") as file:  # half a line of the next clip
        file.write(b'{"clip": "')

    code, out, _ = predict(clips, "--out", whole, "--frames", frames[1], "--workers", 2)
    assert (code, out) == (1, [])
    pd.testing.assert_frame_equal(pd.read_parquet(whole), pd.read_parquet(plain))
    pd.testing.assert_frame_equal(pd.read_parquet(frames[1]), pd.read_parquet(frames[0]))
    assert not journal.exists()


def hang_or_die(task):
    if task == "hangs":
        time.sleep(60)
    if task == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    return task.upper()


def prepare_to_hang():
    return hang_or_die


def fail_to_prepare():
    raise ValueError("no memory")


def test_a_worker_that_hangs_or_dies_costs_its_task_alone():
    tasks = ["a", "hangs", "dies", "b", "c"]
    results = dict(run_tasks(tasks, prepare_to_hang, 2, limit_s=2.0))
    assert results.pop("hangs") == Lost("not done after 2.0 s, so it was stopped")
    assert results.pop("dies").reason.startswith("the process that read it ended by signal 9")
    assert results == {"a": "A", "b": "B", "c": "C"}


def test_a_worker_that_cannot_start_ends_the_run():
    with pytest.raises(RuntimeError, match="a worker cannot start: no memory"):
        list(run_tasks(["a", "b"], fail_to_prepare, 1))


def test_a_journal_keeps_clips_until_their_files_change(tmp_path):
    clip, path = tmp_path / "a.mp4", tmp_path / "out.csv.journal"
    clip.write_bytes(b"1")
    with Journal.open(path, {"--fps": 2}) as journal:
        journal.add(str(clip), {"value": 0.1 + 0.2})
        with pytest.raises(ValueError, match="another run writes here"), Journal.open(path, {}):
            pass
    with Journal.open(path, {"--fps": 2}) as journal:
        assert journal.holds(str(clip))
        assert next(journal.read([str(clip)]))["value"] == 0.1 + 0.2
        clip.write_bytes(b"12")
        assert not journal.holds(str(clip))
        journal.add(str(clip), {"value": 2})
        assert [record["value"] for record in journal.read([str(clip)])] == [2]
    with (
        pytest.raises(ValueError, match=r"other settings: --fps was 2, now 4"),
        Journal.open(path, {"--fps": 4}),
    ):
        pass
    path.write_text("notes\n")
    with pytest.raises(ValueError, match="is no journal"), Journal.open(path, {"--fps": 4}):
        pass


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--workers", 2), "--workers writes tables: give --out"),
        (("--workers", 2, "--out", "a.csv", "--report", "a.html"), "leave --report"),
        (("--time-limit", 5), "--time-limit needs --workers"),
    ],
)
def test_options_that_do_not_go_with_workers_are_one_line(predict, clips, words, message):
    code, _, (line,) = predict(clips, *words)
    assert code == 1
    assert message in line
