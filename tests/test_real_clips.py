"""The benchmark on clips: the same numbers as `predict_video`, stillness from pixels, differences by hand."""

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mma_mrnnet.cli.demo import astronaut, camera_move
from mma_mrnnet.faces.tracks import FaceFrame
from mma_mrnnet.model.labels import affect_names
from mma_mrnnet.prediction import predict_video
from mma_mrnnet.video.reading import VideoFrame
from mma_mrnnet.video.writing import write_video

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = list(affect_names())

cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(FOLDER))  # the scripts import their sibling `machine`
    try:
        spec = importlib.util.spec_from_file_location("real_clips", FOLDER / "real_clips.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("real_clips", None)


def face(row, grey, rate=4):
    """A frame whose crop is of one grey level; None: without a face."""
    crop = None if grey is None else np.full((2, 2, 3), grey, np.uint8)
    return FaceFrame(row, row / rate, (True, True), None, crop)


def reading(bench, greys, values, intensities, rows=None):
    """Every channel of a frame's affect has one value; None where there is no face."""
    rows = rows or range(len(values))
    affect = np.array(
        [[np.nan if value is None else value] * len(NAMES) for value in values], np.float32
    )
    return bench.Reading(
        [face(row, grey) for row, grey in zip(rows, greys, strict=True)], affect, intensities
    )


def test_frames_are_read_as_predict_video_reads_the_file(bench, tmp_path):
    path = write_video(tmp_path / "clip.mp4", camera_move(astronaut(), 12), 10)
    frames, warning = bench.clip_frames(path)
    found, usual = bench.read(frames), predict_video(path, every_frame=True)
    assert warning is None
    # The batches of the extractor differ, which moves the last bits.
    assert found.intensities == pytest.approx(usual.intensities, abs=1e-5)
    np.testing.assert_allclose(found.affect, usual.frames[NAMES].to_numpy(np.float32), atol=1e-5)


def test_the_stillest_second_is_where_the_crops_change_least(bench):
    # Four frames a second, so a second is five frames and four changes: 9 1 2 1 | 3 1 | 9.
    greys = [0, 9, 10, 12, 13, 16, 17, 26]
    assert bench.stillest([face(row, grey) for row, grey in enumerate(greys)]) == (
        1,
        5,
        pytest.approx(7 / 4),
    )
    lost = [face(row, None if row == 3 else grey) for row, grey in enumerate(greys)]
    assert bench.stillest(lost) is None  # no whole second with a face in each frame
    assert bench.stillest(lost, least_s=0.5)[:2] == (4, 6)  # 3 and 1, before 1 and 9


def test_stillness_is_aus_deviation_there_and_found_without_it(bench):
    wild = [0.0, 1.0, 0.0, 1.0, 0.0, 0.5, 0.5, 0.5]
    greys = [0, 0, 0, 0, 0, 50, 90, 130]  # the pixels stand still just where the outputs do not
    still = bench.still_face(reading(bench, greys, wild, {}))
    assert (still["from_s"], still["to_s"], still["frames"]) == (0.0, 1.0, 5)
    assert still["pixel_change"] == 0
    assert still["AU12_standard_deviation"] == pytest.approx(np.sqrt(0.4 * 0.6))  # of 0 1 0 1 0
    assert bench.still_face(reading(bench, [0, 1], [0.1, 0.2], {})) is None


def test_differences_are_over_frames_with_a_face_in_both(bench):
    usual = reading(bench, [1, 1, 1, 1], [0.1, 0.2, None, 0.9], {"Fear": 0.5, "Disgust": 0.25})
    changed = reading(
        bench, [1, 1, 1], [0.2, 0.3, None], {"Fear": 0.25, "Disgust": 0.25}, rows=[0, 2, 3]
    )
    found = bench.difference(usual, changed)
    assert (
        found["frames_compared"] == 1
    )  # frame 0; frame 2 had no face before, frame 3 has none now
    assert found["faces_lost"] == 1
    assert found["affect"] == pytest.approx(0.1)
    assert found["intensities"] == pytest.approx(0.125)
    nothing = bench.difference(usual, reading(bench, [1], [None], {}, rows=[1]))
    assert (nothing["affect"], nothing["intensities"], nothing["faces_lost"]) == (None, None, 1)


def test_half_the_frames_are_sampled_anew(bench):
    image = np.zeros((2, 2, 3), np.uint8)
    frames = [VideoFrame(image, row / 6, row, (row % 3 == 0, True)) for row in range(12)]
    half = bench.every_second(frames)
    assert [frame.index for frame in half] == [0, 2, 4, 6, 8, 10]
    # 2 a second: at or after 0, 0.5, 1, 1.5 s come the frames at 0, 4/6, 6/6 and 10/6 s.
    assert [frame.index for frame in half if frame.due[0]] == [0, 4, 6, 10]


def test_changes_of_pixels_are_what_they_are_called(bench):
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, :3] = (200, 40, 40)
    image[:, 3:] = (40, 40, 200)
    frames = [VideoFrame(image, 0.0, 0, (True, True))]
    (mirrored,) = bench.CHANGES["mirrored"](frames)
    assert mirrored.image[0, 0].tolist() == [40, 40, 200]
    (half,) = bench.CHANGES["half the size"](frames)
    assert half.image.shape == (2, 3, 3)
    (poor,) = bench.CHANGES["JPEG of quality 20"](frames)
    assert poor.image.shape == image.shape
    assert poor.image[0, 0, 0] > poor.image[0, 0, 2] + 50  # red stays red
    assert frames[0].image is image


def test_courses_are_thinned_rounded_and_empty_without_a_face(bench):
    values = [None if row == 10 else row / 3000 for row in range(50)]
    found = bench.courses(
        reading(bench, [1] * 50, values, {}, rows=[row * 0.2 for row in range(50)])
    )  # 20 a second
    assert len(found["time_s"]) == 25
    assert found["time_s"][:3] == [0.0, 0.1, 0.2]
    assert found["AU12"][1] == round(2 / 3000, 3)
    assert found["AU12"][5] is None
    assert set(found) == {"time_s", *bench.COURSES}


def test_the_still_portrait_stands_still_but_for_noise(bench):
    frames = bench.astronaut_still(3, noise=2.0)
    gap = frames[1].image.astype(float) - frames[0].image
    assert gap.std() == pytest.approx(2 * np.sqrt(2), rel=0.1)
    assert abs(gap.mean()) < 0.05
    assert [frame.due[0] for frame in frames] == [True, False, False]
    (calm, again, _) = bench.astronaut_still(3, noise=0.0)
    np.testing.assert_array_equal(calm.image, again.image)


def test_the_whole_run_writes_strict_numbers_and_a_picture(bench, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "RESULT", tmp_path / "clips.json")
    monkeypatch.setattr(bench, "PICTURE", tmp_path / "clips.png")
    still = bench.astronaut_still
    monkeypatch.setattr(bench, "astronaut_still", lambda: still(27))
    (tmp_path / "clips").mkdir()
    write_video(tmp_path / "clips" / "empty.mp4", [np.zeros((64, 64, 3), np.uint8)] * 3, 10)
    bench.main(tmp_path / "clips")
    clips = json.loads((tmp_path / "clips.json").read_text())["clips"]
    assert json.loads(capsys.readouterr().out)["clips"] == clips
    assert clips["empty.mp4"]["error"] == "no face in this video"
    assert clips["empty.mp4"]["courses"] is None
    portrait = clips["astronaut_still"]
    assert portrait["still"]["AU12_standard_deviation"] < 0.05
    # Other frames lie between the searched ones, so that interpolated boxes move a little.
    assert portrait["changed"]["half the frames"]["affect"] < 0.01
    assert portrait["frames_at_own_rate"] == {"sampled": 27, "with_face": 27}
    with Image.open(tmp_path / "clips.png") as picture:
        assert picture.width == 900
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "clips.json", "clips.png"]
