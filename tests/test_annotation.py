"""What a drawn clip promises: every frame, boxes where faces are, nothing over anything else, notes on each frame."""

import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
from skimage.data import astronaut

from mma_mrnnet.prediction import predict_people
from mma_mrnnet.report import annotation
from mma_mrnnet.report.annotation import COLOURS, annotate_video
from mma_mrnnet.video.reading import VideoError, VideoFrame, read_frames
from mma_mrnnet.video.writing import write_video

FACE = cv2.resize(astronaut()[:256, 96:352], (240, 240), interpolation=cv2.INTER_AREA)
GREY = np.full((360, 480, 3), 128, np.uint8)


def on_grey(*lefts, side=240):
    image = GREY.copy()
    face = cv2.resize(FACE, (side, side), interpolation=cv2.INTER_AREA)
    for left in lefts:
        image[40 : 40 + side, left : left + side] = face
    return image


@pytest.fixture
def read(tiny_model, tiny_processor):
    def of(path):
        return predict_people(path, tiny_model, tiny_processor, every_frame=True)

    return of


@pytest.fixture
def placed(monkeypatch):
    """Where each patch of text was laid, a list a frame."""
    frames, blend, paint = [], annotation._blend, annotation._Painter.paint
    monkeypatch.setattr(
        annotation._Painter, "paint", lambda self, frame: frames.append([]) or paint(self, frame)
    )
    monkeypatch.setattr(
        annotation, "_blend", lambda *given: frames[-1].append(blend(*given)) or frames[-1][-1]
    )
    return frames


def near(image, colour, by=60):
    """(H, W) where an image has about that colour."""
    return (np.abs(image.astype(int) - colour) < by).all(-1)


def test_the_box_is_drawn_on_every_frame_with_a_face_and_on_no_other(read, tmp_path):
    clip = write_video(tmp_path / "a.mp4", [on_grey(120), on_grey(120), GREY, on_grey(120)], 4)
    (person, *_) = read(clip)
    assert annotate_video([person], tmp_path / "out.mp4") == []
    frames = list(read_frames(tmp_path / "out.mp4"))
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.25, 0.5, 0.75])
    for frame, row in zip(frames, person.frames.itertuples(), strict=True):
        assert frame.image.shape == (360, 480, 3)
        if not row.face:
            assert not near(frame.image[40:280, 150:330], COLOURS[0]).any()
            continue
        left, middle = round(row.box_x), round(row.box_y + row.box_height / 2)
        assert (
            near(frame.image[middle - 5 : middle + 5, left - 2 : left + 3], COLOURS[0]).any(1).all()
        )


def test_a_clip_without_a_face_is_written_with_a_note_that_says_so(read, tmp_path, placed):
    clip = write_video(tmp_path / "a.mp4", [GREY] * 3, 4)
    assert annotate_video(read(clip), tmp_path / "out.mp4") == []
    assert [len(frame) for frame in placed] == [1, 1, 1]  # the notes alone
    ((left, top, width, height),) = placed[0]
    assert (left, width, top + height) == (0, 480, 360)
    for frame in read_frames(tmp_path / "out.mp4"):
        assert np.abs(frame.image[: top - 2].astype(int) - 128).max() < 6
        assert (frame.image[top:] > 200).any()  # white letters


def test_what_is_written_lies_over_no_face_and_over_nothing_else_written(read, tmp_path, placed):
    images = [on_grey(10 + 4 * step, 250 - 4 * step, side=170) for step in range(4)]
    people = read(write_video(tmp_path / "a.mp4", images, 4))
    assert len(people) == 2
    annotate_video(people, tmp_path / "out.mp4")
    for number, patches in enumerate(placed):
        assert len(patches) == 2 * sum(person.frames["face"][number] for person in people) + 1
        boxes = [annotation._Person.of(person, 0).box(number) for person in people]
        for place, one in enumerate(patches):
            assert not any(annotation._overlap(one, other) for other in patches[place + 1 :])
            assert not any(annotation._overlap(one, box) for box in boxes)
            assert one[0] >= 0 and one[1] >= 0 and one[0] + one[2] <= 480 and one[1] + one[3] <= 360


def test_a_caption_goes_where_it_hides_no_other_face_and_stays_there(placed):
    # One face right above the other: above the lower one, where captions go first, there is no room.
    boxes = [[200.0, 60, 100, 100], [200.0, 170, 100, 100]]
    captions = dict.fromkeys(range(3), ("happiness 0.98",))
    people = [
        annotation._Person(
            f"person {number}",
            COLOURS[number],
            np.array([box] * 3),
            captions,
            np.array([]),
            np.array([]),
        )
        for number, box in enumerate(boxes)
    ]
    painter = annotation._Painter(people, ["Joy"], "a note", (360, 480))
    for number in range(3):
        painter.paint(VideoFrame(GREY.copy(), number / 10, number, (True,)))
    assert placed[0] == placed[1] == placed[2]
    _, *captions = placed[0]
    faces = [tuple(map(int, box)) for box in boxes]
    assert not any(annotation._overlap(caption, face) for caption in captions for face in faces)
    assert not annotation._overlap(*captions)


def test_people_have_colours_of_their_own(read, tmp_path):
    people = read(write_video(tmp_path / "a.mp4", [on_grey(10, 250, side=200)] * 3, 4))
    annotate_video(people, tmp_path / "out.mp4")
    (frame, *_) = read_frames(tmp_path / "out.mp4")
    for person, colour in zip(people, COLOURS, strict=False):
        row = person.frames.iloc[0]
        column = frame.image[round(row.box_y) + 20, round(row.box_x) - 2 : round(row.box_x) + 3]
        assert near(column, colour).any()


def test_the_bars_are_the_estimate_of_the_frames_so_far(read, tmp_path):
    clip = write_video(tmp_path / "a.mp4", [on_grey(120)] * 6, 4)
    (person, *_) = read(clip)
    drawn = annotation._Person.of(person, 0)
    # Sampled at 2 a second: 0, 0.5 and 1 s.
    assert person.running["time_s"].tolist() == pytest.approx([0, 0.5, 1.0])
    values = person.running[list(person.intensities)].to_numpy()
    for time_s, row in ((0.0, 0), (0.25, 0), (0.5, 1), (0.75, 1), (1.25, 2)):
        assert drawn.running_place(time_s) == row
        assert np.array_equal(drawn.running[row], values[row])
    assert drawn.running_place(-0.1) is None


def test_a_panel_is_filled_to_the_share_that_it_stands_for():
    shares = np.array([[0.0, 0], [0.5, 0], [1.0, 0], [1.7, 0]])
    person = annotation._Person(
        "person 0", COLOURS[0], np.zeros((1, 4)), {}, np.arange(4.0), shares
    )
    painter = annotation._Painter([person], ["Joy", "Fear"], "a note", (720, 1280))
    counts = []
    for place in range(4):
        panel = painter._draw_panel(person, place)
        rows = near(panel[..., :3], COLOURS[0], 3)[
            panel.shape[0] // 3 :
        ]  # below the name, in the same colour
        counts.append(int(rows.any(0).sum()))
    nothing, half, full, beyond = counts
    assert nothing <= 1
    assert half == pytest.approx(full / 2, abs=2)
    assert beyond == full


def frames_of(boxes=None, **columns):
    count = len(next(iter(columns.values()))) if columns else len(boxes)
    table = pd.DataFrame({"frame": range(count), "time_s": np.arange(count) / 10, "face": True})
    return table.assign(**columns)


def test_what_is_said_of_a_face_changes_twice_a_second_and_at_once_for_a_new_face():
    table = frames_of(happiness=np.linspace(0.4, 0.6, 11))
    table.loc[7, ["face", "happiness"]] = [False, np.nan]
    said = annotation._caption_frames(table, ())
    assert [said.get(number, ("",))[0][-4:] for number in range(11)] == [
        *["0.40"] * 5,  # 0 to 0.4 s
        *["0.50"] * 2,  # 0.5 and 0.6 s
        "",  # no face
        *["0.56"] * 2,  # a face again
        "0.60",  # 1 s
    ]


def test_only_what_is_likely_is_named_and_units_that_no_label_reached_never():
    table = frames_of(
        happiness=[0.55], sadness=[0.35], anger=[0.1], AU11=[0.99], AU12=[0.8], AU25=[0.2]
    )
    assert annotation._caption_frames(table, ("AU11",)) == {
        0: ("happiness 0.55  sadness 0.35", "AU12 0.80")
    }
    unsure = frames_of(happiness=[0.2], sadness=[0.25], AU12=[0.1])
    assert annotation._caption_frames(unsure, ()) == {0: ("sadness 0.25",)}


def test_boxes_lose_their_tremor_and_neither_lag_nor_float():
    def steadied(values):
        return annotation._smooth(pd.DataFrame(dict.fromkeys(annotation.BOX_NAMES, values)))[
            :, 0
        ].tolist()

    assert steadied([10.0, 10, 13, 10, 10, 10]) == [10] * 6  # tremor
    assert steadied([0.0, 10, 20, 30, 40, 50, 60])[2:5] == [20, 30, 40]  # in motion: where it is
    assert steadied([0.0, 0, 0, 0, 90, 90, 90, 90])[2:6] == [0, 0, 90, 90]  # a jump
    gone = steadied([10.0, 10, np.nan, 10, 10])
    assert np.isnan(gone[2])
    assert gone[:2] == [10, 10]


@pytest.mark.parametrize("size", [(360, 640), (1080, 1920), (1920, 1080)])
def test_text_is_large_enough_to_read_and_leaves_most_of_the_frame_free(size):
    person = annotation._Person(
        "person 0",
        COLOURS[0],
        np.array([[300.0, 100, 80, 80]]),
        {},
        np.array([0.0]),
        np.zeros((1, 7)),
    )
    names = ["Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise"]
    painter = annotation._Painter(
        [person], names, "learnt from a simulator; relative within the clip", size
    )
    assert painter.without_room() == []
    width, height = (side // annotation._FINE for side in painter._panel_size())
    assert painter._small.size / annotation._FINE >= max(10, 0.02 * min(size))
    assert width * height < size[0] * size[1] / 5
    assert (
        annotation._shorten(
            "Empathic-Pain", painter._small, painter._small.getlength("Empathic-Pain")
        )
        == "Empathic-Pain"
    )


def test_frames_too_small_for_the_estimates_say_so(read, tmp_path):
    clip = write_video(tmp_path / "a.mp4", [FACE[::2, ::2]] * 2, 4)
    (said,) = annotate_video(read(clip), tmp_path / "out.mp4")
    assert said == "frames of 120 x 120 have no room for the estimates of person 0"


def test_long_names_of_targets_are_shortened_in_their_panel_and_stay_inside():
    font = annotation.ImageFont.load_default(30)
    long = "Amusement that was reported after the film"
    short = annotation._shorten(long, font, 200)
    assert font.getlength(short) <= 200
    assert short.endswith("…")
    assert long.startswith(short[:-1])


def test_notes_are_wrapped_and_each_stands_once(read, tmp_path):
    people = read(write_video(tmp_path / "a.mp4", [on_grey(10, 250, side=200)] * 3, 4))
    said = annotation._join_notes(people)
    assert said.count("relative within the clip") == 1
    font = annotation.ImageFont.load_default(30)
    lines = annotation._wrap(said, font, 300)
    assert " ".join(lines) == said
    assert max(font.getlength(line) for line in lines) <= 300


def test_a_note_that_is_not_everybodys_says_whose_it_is(read, tmp_path):
    people = read(write_video(tmp_path / "a.mp4", [on_grey(10, 250, side=200)] * 3, 4))
    apart = [
        replace(each, neutral_s=(float(place), place + 1.0)) for place, each in enumerate(people)
    ]
    said = annotation._join_notes(apart).split("; ")
    own = "calibrated by the person's own neutral from"
    assert [part for part in said if own in part] == [
        f"person 0: {own} 0 to 1 s, unlike in training",
        f"person 1: {own} 1 to 2 s, unlike in training",
    ]
    assert "relative within the clip" in said
    alike = [replace(each, neutral_s=(0.0, 1.0)) for each in people]
    assert "person" not in annotation._join_notes(alike).replace("person's", "")
    one_lost = annotation._join_notes([people[0], replace(people[1], error="no face there")])
    assert "person 1: no face there" in one_lost
    assert "relative within the clip" in one_lost.split("; ")


def test_a_prediction_of_some_frames_of_other_clips_or_of_none_is_refused(read, tmp_path):
    clip = write_video(tmp_path / "a.mp4", [on_grey(120)] * 6, 4)
    (person, *_) = read(clip)
    sampled = replace(person, frames=person.frames.iloc[::2])
    for people, what in (
        ([sampled], "predict it with every_frame=True"),
        ([person, replace(person, file="b.mp4")], "must be of one clip"),
        ([], "must be of one clip"),
    ):
        with pytest.raises(ValueError, match=what):
            annotate_video(people, tmp_path / "out.mp4")
    with pytest.raises(ValueError, match="is the clip itself"):
        annotate_video([person], clip)
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_clip_in_an_archive_is_fetched_again_and_frames_in_memory_are_refused(
    tiny_model, tiny_processor, tmp_path
):
    clip = write_video(tmp_path / "a.mp4", [on_grey(120)] * 3, 4)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(clip, "a.mp4")
    url = f"zip://a.mp4::{tmp_path / 'a.zip'}"
    annotate_video(
        predict_people(url, tiny_model, tiny_processor, every_frame=True), tmp_path / "b.mp4"
    )
    assert len(list(read_frames(tmp_path / "b.mp4"))) == 3
    frames = np.stack([frame.image for frame in read_frames(clip)])
    people = predict_people(frames, tiny_model, tiny_processor, fps=4, every_frame=True)
    with pytest.raises(VideoError, match=r"^video of 3 frames: no such file"):
        annotate_video(people, tmp_path / "c.mp4")
