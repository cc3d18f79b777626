"""What `demo.py` promises: a clip with a face in it, the tables, and a picture that opens."""

import logging
import sys

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from transformers.utils import logging as transformers_logging

from mma_mrnnet import cli
from mma_mrnnet.cli import demo
from mma_mrnnet.cli.demo import astronaut, camera_move, run_demo
from mma_mrnnet.faces.detection import FaceDetector

FILES = ["astronaut.mp4", "frames.csv", "result.csv", "result.png"]

cv2.setNumThreads(1)


@pytest.fixture(autouse=True)
def logging_kept():
    """What `main` sets for its process stays inside each test."""
    logger, verbosity = logging.getLogger("mma_mrnnet"), transformers_logging.get_verbosity()
    level = logger.level
    yield
    logger.setLevel(level)
    transformers_logging.set_verbosity(verbosity)


@pytest.fixture
def short_demo(monkeypatch):
    monkeypatch.setattr(demo, "DURATION_S", 1)


def test_the_camera_moves_smoothly_onto_a_face_that_stays_in_view():
    frames = list(camera_move(astronaut(), 4))
    assert [frame.shape for frame in frames] == [(480, 640, 3)] * 4
    sides = [FaceDetector()(frame)[0].side for frame in frames]
    assert sides == sorted(sides)
    assert sides[-1] / sides[0] == pytest.approx(1.4, abs=0.1)


def test_a_camera_move_of_one_frame_is_the_whole_photo():
    (frame,) = camera_move(astronaut(), 1)
    assert frame.dtype == np.uint8


@pytest.mark.slow
def test_the_demo_writes_its_four_files_and_sees_the_face_in_every_frame(tmp_path):
    prediction, written = run_demo(tmp_path / "new" / "folder")
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == FILES
    assert sorted(path.name for path in written.values()) == FILES
    assert prediction.duration_s == pytest.approx(6.0)
    assert prediction.frames_sampled == prediction.frames_with_face == 12  # 6 s at 2 a second
    assert prediction.error is None
    with Image.open(written["picture"]) as picture:
        picture.load()
        assert (picture.format, picture.width > 800) == ("PNG", True)
    assert pd.read_csv(written["result"])["file"].tolist() == [str(written["clip"])]
    assert len(pd.read_csv(written["frames"])) == 12


def test_a_second_run_replaces_the_files_of_the_first(short_demo, tmp_path):
    for name in FILES:
        (tmp_path / name).write_text("old")
    run_demo(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES
    assert all((tmp_path / name).stat().st_size > 100 for name in FILES)


def test_the_command_prints_the_result_its_notes_and_what_was_written(short_demo, tmp_path, capsys):
    assert cli.main(["demo", "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert "a face in 2 of 2 frames" in out
    assert "note: " in err
    assert all(str(tmp_path / "out" / name) in err for name in FILES)


@pytest.mark.parametrize("missing", ["skimage", "matplotlib"])
def test_a_missing_extra_is_one_clear_line_before_any_work(monkeypatch, tmp_path, capsys, missing):
    for name in [name for name in sys.modules if name.split(".")[0] == missing] + [missing]:
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["demo", "--out", str(tmp_path / "out")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    assert "pip install 'mma-mrnnet[demo]'" in line
    assert not (tmp_path / "out").exists()
