"""`mma-mrnnet evaluate`: changed copies of crops, and clips with reference time courses."""

import json

import numpy as np
import pytest
import torch

from mma_mrnnet import cli
from mma_mrnnet.analysis.copies import (
    DARK,
    DISTURBED,
    MIRRORED,
    Extractor,
    change_crop,
    score_steadiness,
)
from mma_mrnnet.analysis.time_courses import (
    Course,
    match_times,
    read_references,
    score_courses,
)
from mma_mrnnet.results import EvaluationResults

NAN = float("nan")


# Copies of crops ---------------------------------------------------------------------------------


def test_a_mirrored_copy_is_turned_and_a_dark_one_has_a_third_of_the_light():
    crop = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10
    assert (change_crop(crop, MIRRORED)[:, 0] == crop[:, 3]).all()
    assert change_crop(crop, DARK)[1, 3].tolist() == [70, 73, 77]  # 210, 220, 230


def test_a_disturbed_copy_is_nearly_the_crop_and_always_the_same():
    crop = np.full((112, 112, 3), 100, np.uint8)
    crop[40:70, 40:70] = 150
    disturbed = change_crop(crop, DISTURBED)
    assert (disturbed == change_crop(crop, DISTURBED)).all()
    difference = disturbed.astype(float) - crop
    assert 1 < np.abs(difference).mean() < 4
    assert abs(difference.mean()) < 0.5


def test_scores_of_copies_by_hand_on_any_scale():
    labels = torch.tensor([[0.0, NAN], [0.2, NAN], [0.4, NAN], [0.6, NAN]])
    outputs = 2 * labels.nan_to_num(0.0) - 0.3  # deviation 2 * sqrt(.05) = .4472
    copies = torch.stack([outputs.flip(0), torch.full((4, 2), 0.5), outputs + 0.1], 1)
    found = score_steadiness((12, 25), labels, outputs, copies)
    assert found.units == ["AU12"]
    assert found.mean_correlation == pytest.approx(
        {"as_is": 1.0, "mirrored": -1.0, "averaged": 0.0, "dark": 0.0}
    )
    assert found.mirror_agreement["AU12"] == pytest.approx(-1)
    assert found.dark_loss["AU12"] == pytest.approx(1)
    assert found.jitter["AU12"] == pytest.approx(0.1)
    assert found.relative_jitter["AU12"] == pytest.approx(0.1 / 0.4472, abs=1e-4)
    assert found.mean("relative_jitter") == found.relative_jitter["AU12"]


def test_means_leave_out_units_that_a_landmark_model_cannot_answer():
    labels = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    outputs = torch.tensor([[0.0, 1.0], [1.0, 0.0]])  # AU9 upside down
    copies = outputs.unsqueeze(1).expand(-1, 3, -1)
    found = score_steadiness((12, 9), labels, outputs, copies)
    assert found.units == ["AU12"]
    assert found.mean_correlation["as_is"] == pytest.approx(1)
    assert found.mirror_agreement["AU09"] == pytest.approx(1)


# Time courses ------------------------------------------------------------------------------------


def course(reference, outputs=None, *, name="a.mp4", step=0.04, mirrored=None, dark=None):
    """A clip of one unit; without outputs they are the reference."""
    reference = np.array(reference, float).reshape(len(reference), -1)
    outputs = reference if outputs is None else np.array(outputs, float).reshape(reference.shape)
    copies = [outputs if one is None else np.array(one, float) for one in (mirrored, dark)]
    copies = [one.reshape(reference.shape) for one in copies]
    return Course(name, np.arange(len(reference)) * step, reference, outputs, *copies)


def wave(count=60, period=20):
    return 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(count) / period)


def test_outputs_on_another_scale_agree_completely():
    found = score_courses([course(wave(), 0.2 * wave() + 0.7)], (12,))
    assert found.cells == 1
    assert found.mean_pearson["as_is"] == pytest.approx(1)
    assert (found.lag_frames, found.lag_s) == (0, 0)
    assert found.by_unit == pytest.approx({"AU12": 1.0})
    assert found.jitter == found.reference_jitter is None  # no still neighbours


def test_cells_are_the_units_whose_reference_varies():
    # Deviations .051 and .049, half of the ranges; the third is unknown.
    reference = np.stack([np.tile([0.0, value], 20) for value in (0.102, 0.098, NAN)], 1)
    clip = course(reference, np.nan_to_num(reference))
    assert score_courses([clip], (4, 12, 25)).by_unit.keys() == {"AU04"}


def test_the_mean_is_over_cells_and_not_over_clips():
    varied = np.stack([wave(), wave()], 1)
    constant = np.full((60, 2), 0.5)
    silent = course(np.stack([wave(), np.zeros(60)], 1), constant, name="b.mp4")
    found = score_courses([course(varied), silent], (12, 25))
    assert found.cells == 3
    assert found.mean_pearson["as_is"] == pytest.approx(2 / 3)
    assert found.pearson.value == pytest.approx(2 / 3)
    assert (found.pearson.low, found.pearson.high) == pytest.approx((0, 1))
    assert found.by_unit == pytest.approx({"AU12": 0.5, "AU25": 1.0})
    assert found.clips["b.mp4"].mean_pearson == 0


@pytest.mark.parametrize("lag", [3, -2])
def test_the_lag_is_positive_if_the_outputs_come_later(lag):
    found = score_courses([course(wave(), np.roll(wave(), lag))], (12,))  # whole periods
    assert (found.lag_frames, found.lag_s) == (lag, pytest.approx(lag * 0.04))
    assert found.mean_pearson["at_lag"] == pytest.approx(1)
    assert found.mean_pearson["as_is"] == pytest.approx(np.cos(2 * np.pi * lag / 20))


def test_what_mirroring_and_darkness_do_by_hand():
    clip = course(wave(), mirrored=1 - wave(), dark=np.full(60, 0.1))
    found = score_courses([clip], (12,))
    assert found.mean_pearson == pytest.approx(
        {"as_is": 1.0, "mirrored": -1.0, "averaged": 0.0, "dark": 0.0, "at_lag": 1.0}
    )
    assert found.mirror_agreement == pytest.approx(-1)


def test_jitter_is_measured_between_neighbours_whose_reference_is_still():
    # Still for 20 frames at 0, then at 1: deviation .5. The outputs flicker between +-.05.
    reference = np.repeat([0.0, 1.0], 20)
    flicker = np.tile([-0.05, 0.05], 20)
    found = score_courses([course(reference, reference + flicker)], (12,))
    assert found.still_neighbours == 38  # all but the step
    assert found.reference_jitter == 0
    assert found.jitter == pytest.approx(0.1 / np.sqrt(0.25 + 0.05**2))
    scaled = score_courses([course(reference, 3 * (reference + flicker))], (12,))
    assert scaled.jitter == pytest.approx(found.jitter)


def test_a_pause_in_the_reference_parts_neighbours():
    clip = course(np.repeat([0.0, 1.0], 20))
    late = Course(clip.name, clip.times_s + (np.arange(40) >= 10), *[clip.reference] * 4)
    assert score_courses([late], (12,)).still_neighbours == 37


def test_frames_without_a_face_are_counted_and_not_scored():
    outputs = wave()
    outputs[10:15] = NAN
    found = score_courses([course(wave(), outputs, mirrored=outputs, dark=outputs)], (12,))
    assert (found.clips["a.mp4"].frames, found.clips["a.mp4"].without_face) == (55, 5)
    assert found.mean_pearson["as_is"] == pytest.approx(1)


def test_clips_in_which_nothing_varies_have_no_score():
    nobody = np.zeros((0, 1))
    empty = Course("none.mp4", np.zeros(0), *[nobody] * 4)
    found = score_courses([course(np.zeros(30)), empty], (12,))
    assert found.cells == 0
    assert found.pearson.value is found.lag_frames is found.mean_pearson["as_is"] is None
    assert found.clips["a.mp4"].frames == 30


def test_times_find_the_nearest_frame_once():
    frames = np.array([0.0, 0.04, 0.08, 0.12])
    times = np.array([0.001, 0.03, 0.045, 0.119, 0.2])
    # .03 and .045 share a frame, which is nearer to .045; .2 is after the end.
    assert match_times(frames, times).tolist() == [0, -1, 1, 3, -1]
    assert match_times(np.zeros(0), times).tolist() == [-1] * 5


# Reading -----------------------------------------------------------------------------------------


def write(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("smile.mp4", "talk.mp4"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_a_table_beside_each_clip_is_read(folder):
    write(folder / "smile.csv", "time_s,AU12_r,AU12_c,au25,gaze_x\n0.04,.5,1,,7\n0,.1,0,.2,7\n")
    write(folder / "notes.txt", "not a table")
    (one,) = read_references(folder, (4, 12, 25))
    assert (one.clip, one.times_s.tolist()) == (folder / "smile.mp4", [0, 0.04])  # sorted
    np.testing.assert_equal(one.values, [[NAN, 0.1, 0.2], [NAN, 0.5, NAN]])


def test_one_table_holds_all_clips(folder):
    rows = "file_name,time,au12\nsmile.mp4,0,.1\ntalk.mp4,0,.3\nsmile.mp4,1,.2\n"
    write(folder / "reference.csv", rows)
    found = {one.clip.name: one.values[:, 0].tolist() for one in read_references(folder, (12,))}
    assert found == {"smile.mp4": [0.1, 0.2], "talk.mp4": [0.3]}


def test_a_table_of_predict_is_a_reference(folder):
    write(folder / "frames.csv", "file,track,time_s,face,AU12\nelse/where/smile.mp4,0,0,True,.1\n")
    (one,) = read_references(folder, (12,))
    assert one.clip == folder / "smile.mp4"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("time_s,au12\n0,3\n", r"csv:2: au12 must be in \[0, 1\].*divide.*got '3'"),
        ("time_s,au12\n0,high\n", "csv:2: au12 must be in"),
        ("time_s,au12\n,0.5\n", "csv:2: time_s must be a number"),
        ("time_s,au12\n0,.1\n0,.2\n", "csv:3: a second row at 0"),
        ("frame,au12\n0,.1\n", "csv:1: a reference needs a column time_s"),
        ("time_s,au45\n0,.1\n", "one of an action unit"),
        ("file_name,time_s,au12\nlost.mp4,0,.1\n", "csv:2: no clip .*lost.mp4"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(folder, text, problem):
    write(folder / "smile.csv", text)
    with pytest.raises(ValueError, match=problem):
        read_references(folder, (12,))


def test_a_folder_without_a_table_or_a_clip_is_refused(folder):
    with pytest.raises(ValueError, match="no table of reference values"):
        read_references(folder, (12,))
    write(folder / "other.csv", "time_s,au12\n0,.1\n")
    with pytest.raises(ValueError, match=r"one clip other\.\* must lie beside the table"):
        read_references(folder, (12,))
    with pytest.raises(ValueError, match="no such folder"):
        read_references(folder / "smile.mp4", (12,))


# The command -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("settings_kept")
def test_the_command_scores_clips(tiny_mma, tiny_processor, shared_clips, tmp_path, capsys):
    model, data, out = (tmp_path / name for name in ("model", "clips", "out"))
    tiny_mma.save_pretrained(model)
    tiny_processor.save_pretrained(model)
    data.mkdir()
    clip = shared_clips / "single_face.mp4"  # 72 frames, 30 a second
    (data / clip.name).symlink_to(clip)
    rows = [f"{frame / 30},{frame / 72},{NAN if frame < 36 else 0.5}" for frame in range(72)]
    write(data / "single_face.csv", "\n".join(["time_s,au12,au25", *rows]))
    words = ["evaluate", model, "--data", f"reference_clips:{data}", "--out", out]
    assert cli.main([*map(str, words), "--against", str(model)]) == 0
    assert {path.name for path in out.iterdir()} == {"evaluation.json", "evaluation.md"}
    report = json.loads((out / "evaluation.json").read_text())
    assert EvaluationResults.from_json(report).to_json() == report
    found = report["time_courses"]
    assert found["clips"]["single_face.mp4"]["frames"] == 72
    assert (found["cells"], list(found["by_unit"])) == (1, ["AU12"])
    assert found == report["against"]["time_courses"]
    page = (out / "evaluation.md").read_text()
    assert "1 clips, 72 frames with a face and a reference" in page
    assert cli.main([*map(str, words), "--pictures", "a"]) == 1
    assert "--pictures needs labelled crops" in capsys.readouterr().err


def test_an_extractor_gives_one_row_per_crop_and_copy(tiny_mma, tiny_processor):
    extractor = Extractor("tiny", tiny_mma, tiny_processor)
    crops = [np.full((32, 32, 3), value, np.uint8) for value in (30, 90)]
    copies = extractor.read_copies(crops, (MIRRORED, DARK))
    assert copies.shape == (2, 2, 17)
    assert np.allclose(copies[:, 0], extractor.read_affect(crops)[:, 9:])  # symmetric crops
    assert np.allclose(copies[1, 1], extractor.read_affect(crops[:1])[0, 9:])  # 90 / 3 = 30
