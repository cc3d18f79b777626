"""What `prediction/` promises of several people: a result each, the same one as training's, and what it rests on."""

import pickle

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from skimage.data import astronaut

from mma_mrnnet import MMAMRNNetConfig, MMAMRNNetForIntensity, predict_people, predict_video
from mma_mrnnet.crops.store import (
    CropSettings,
    OlderCropsError,
    read_current_index,
    read_index,
    store_crops,
)
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.faces.strips import MOST, MOST_PEOPLE, FaceSnapshot, Strip, Strips
from mma_mrnnet.features.clip_rows import AffectCache
from mma_mrnnet.features.records import ClipFile
from mma_mrnnet.model.labels import affect_names
from mma_mrnnet.video.writing import write_video

FACE = astronaut()[:256, 96:352]
AFFECT = list(affect_names())
BOX = ["box_x", "box_y", "box_width", "box_height"]

cv2.setNumThreads(1)


def scene(*people):
    """(x, side, brightness) each: where and how large the astronaut stands; whoever is None is away."""
    image = np.full((160, 400, 3), 128, np.uint8)
    for x, side, brightness in filter(None, people):
        face = cv2.resize(FACE, (side, side), interpolation=cv2.INTER_AREA)
        image[:side, x : x + side] = cv2.convertScaleAbs(face, alpha=brightness)
    return image


def small(number):
    return 0, 120, 0.7 + 0.03 * number


def large(number):
    return 240, 160, 1 - 0.04 * number


@pytest.fixture
def both(tmp_path):
    """Two frames a second: the larger one is there for the first 4 frames of 8, the smaller one for all."""
    images = [scene(small(number), large(number) if number < 4 else None) for number in range(8)]
    return write_video(tmp_path / "both.mp4", images, 2)


def same(intensities, others):
    return list(intensities) == list(others) and list(intensities.values()) == list(others.values())


def test_each_person_has_a_result_and_the_first_is_the_default(tiny_model, tiny_processor, both):
    people = predict_people(both, tiny_model, tiny_processor)
    assert [person.track for person in people] == [0, 1]
    assert [person.frames_with_face for person in people] == [8, 4]
    assert [person.frames_sampled for person in people] == [8, 8]
    assert [person.people for person in people] == [2, 2]
    assert (
        people[0].frames["box_width"].mean() < people[1].frames["box_width"].mean()
    )  # the one who stays is smaller
    assert people[1].frames["track"].tolist() == [1] * 8
    assert not same(people[0].intensities, people[1].intensities)
    default = predict_video(both, tiny_model, tiny_processor)
    assert same(default.intensities, people[0].intensities)
    pd.testing.assert_frame_equal(default.frames, people[0].frames)


def test_who_else_is_in_the_picture_changes_no_bit_of_a_persons_affect(
    tiny_model, tiny_processor, monkeypatch, both
):
    together = predict_people(both, tiny_model, tiny_processor)[0]
    whole = FaceDetector.__call__
    # The same pictures with a detector that does not see the other one.
    monkeypatch.setattr(
        FaceDetector,
        "__call__",
        lambda self, image: [f for f in whole(self, image) if f.box[0] < 200],
    )
    (alone,) = predict_people(both, tiny_model, tiny_processor)
    assert same(together.intensities, alone.intensities)
    pd.testing.assert_frame_equal(together.frames, alone.frames, check_exact=True)


def test_frames_between_the_sampled_ones_change_nobodys_intensities_beyond_rounding(
    tiny_model, tiny_processor, tmp_path
):
    images = [scene(small(number), large(number) if number < 8 else None) for number in range(16)]
    path = write_video(tmp_path / "dense.mp4", images, 8)
    usual = predict_people(path, tiny_model, tiny_processor)
    dense = predict_people(path, tiny_model, tiny_processor, every_frame=True)
    assert [person.frames_with_face for person in usual] == [4, 2]
    assert [person.frames_with_face for person in dense] == [16, 8]
    for person, other in zip(usual, dense, strict=True):
        # To float32 rounding: the crops pass the network in other batches.
        assert person.intensities == pytest.approx(other.intensities, abs=1e-6, rel=0)
        assert [face.frame for face in person.strip] == [face.frame for face in other.strip]


def test_a_face_in_one_frame_is_listed_last_and_does_not_count_among_the_people(
    tiny_model, tiny_processor, tmp_path
):
    images = [scene(small(number), large(number) if number == 3 else None) for number in range(8)]
    people = predict_people(
        write_video(tmp_path / "glimpse.mp4", images, 2), tiny_model, tiny_processor
    )
    assert [person.frames_with_face for person in people] == [8, 1]
    assert [person.people for person in people] == [1, 1]
    assert people[1].warning == "rests on 1 frame with a face: too few to rely on"


def test_a_clip_without_a_face_gives_the_one_result_that_says_so(
    tiny_model, tiny_processor, tmp_path
):
    path = write_video(tmp_path / "grey.mp4", [scene()] * 4, 2)
    (nobody,) = predict_people(path, tiny_model, tiny_processor)
    assert nobody.error == "no face in this video"
    assert (nobody.people, nobody.strip, nobody.thumbnail, nobody.constant) == (0, [], None, {})
    assert len(nobody.moments) == len(nobody.running) == 0
    assert nobody.moments.columns.tolist() == ["frame", "time_s", *nobody.intensities]


# ---- training means the same person


def test_stored_crops_caches_and_prediction_mean_the_same_person(
    tiny_model, tiny_processor, both, tmp_path
):
    index = store_crops(both, tmp_path / "crops", CropSettings(2.0, 32, "png"), FaceDetector())
    names = [f"{number:05d}.png" for number in range(1, 9)]
    assert sorted(path.name for path in (tmp_path / "crops").iterdir()) == [*names, "crops.json"]
    assert index.faces == 8
    cache = AffectCache(tmp_path / "cache", tiny_model.mma, tiny_processor, 2.0)
    of_video, of_crops = (
        cache.compute(ClipFile(path.name, path, "", "train", {"joy": 0.5}))
        for path in (both, tmp_path / "crops")
    )
    predicted = predict_video(both, tiny_model, tiny_processor).frames[AFFECT].to_numpy(np.float32)
    assert (of_video == of_crops).all()
    assert (of_video == predicted).all()


def test_crops_of_an_older_version_are_refused_in_training_and_replaced_by_the_command(
    both, tmp_path
):
    folder, settings = tmp_path / "crops", CropSettings()
    store_crops(both, folder, settings, FaceDetector())
    path = folder / "crops.json"
    path.write_text(path.read_text("utf-8").replace('"format":2', '"format":1'), "utf-8")
    with pytest.raises(OlderCropsError, match="older version of `mma-mrnnet crop`; run it again"):
        read_index(folder)
    assert read_current_index(both, folder, settings) is None
    assert store_crops(both, folder, settings, FaceDetector()) == read_current_index(
        both, folder, settings
    )


# ---- what a prediction rests on


def test_contributions_and_the_constant_add_up_to_the_output(tiny_model, tiny_processor, both):
    found = predict_video(both, tiny_model, tiny_processor)  # 8 sampled, 4 taken: 0, 2, 5 and 7
    assert found.moments["frame"].tolist() == [0, 2, 5, 7]
    assert found.moments["time_s"].tolist() == [0, 1, 2.5, 3.5]
    names = list(found.intensities)
    outputs = found.moments[names].sum() + pd.Series(found.constant)
    sigmoid = 1 / (1 + np.exp(-outputs))
    assert sigmoid.to_numpy() == pytest.approx(list(found.intensities.values()), abs=1e-6)


def test_running_intensities_are_those_of_the_frames_so_far(tiny_model, tiny_processor, both):
    found = predict_video(both, tiny_model, tiny_processor)
    names = list(found.intensities)
    assert found.running["time_s"].tolist() == found.moments["time_s"].tolist()
    kept = found.frames.set_index("frame").loc[[0, 2], AFFECT].to_numpy(np.float32, copy=True)
    with torch.no_grad():
        two = tiny_model(affect=torch.from_numpy(kept)[None]).intensities[0]
    assert found.running.loc[1, names].to_numpy(float) == pytest.approx(two.numpy(), abs=1e-6)
    assert found.running[names].iloc[-1].to_list() == pytest.approx(
        list(found.intensities.values()), abs=1e-6
    )


def test_a_network_that_reads_padding_has_no_contributions(tiny_config, tiny_processor, both):
    padded = MMAMRNNetForIntensity(
        MMAMRNNetConfig(**{**tiny_config.to_dict(), "temporal_pooling": "padded"})
    ).eval()
    found = predict_video(both, padded, tiny_processor)
    assert found.constant == {}
    assert found.moments[list(found.intensities)].isna().to_numpy().all()
    assert found.running[list(found.intensities)].notna().to_numpy().all()


def test_the_strip_shows_the_person_and_the_thumbnail_is_the_surest_of_it(
    tiny_model, tiny_processor, both
):
    for person, frames in zip(
        predict_people(both, tiny_model, tiny_processor), (range(8), range(4)), strict=True
    ):
        assert [face.frame for face in person.strip] == list(frames)
        assert [face.time_s for face in person.strip] == [number / 2 for number in frames]
        assert all(
            face.crop.shape == (32, 32, 3) and face.crop.dtype == np.uint8 for face in person.strip
        )
        assert person.thumbnail.score == max(face.score for face in person.strip)
    first = predict_people(both, tiny_model, tiny_processor)[1].strip[0]
    assert (
        first.crop.mean()
        > 1.2 * predict_video(both, tiny_model, tiny_processor).strip[0].crop.mean()
    )


def snapshot(number):
    return FaceSnapshot(number / 2, number, np.zeros((1, 1, 3), np.uint8), 0.9)


@pytest.mark.parametrize("faces", [0, 1, 11, 12, 13, 24, 25, 48, 49, 1000])
def test_a_strip_of_any_length_is_spread_evenly_over_it(faces):
    strip = Strip()
    for number in range(faces):
        strip.add(snapshot(number))
    frames = [face.frame for face in strip.snapshots()]
    assert len(frames) == min(faces, MOST)
    assert frames[:1] == list(range(faces))[:1]
    if faces > MOST:
        gaps = np.diff(frames)
        assert gaps.max() <= 2 * gaps.min()
        assert frames[-1] >= 0.9 * (faces - 1)


def test_strips_are_held_of_those_with_the_most_faces_alone():
    strips = Strips()
    for number in range(5):
        strips.add(0, snapshot(number))
    for track in range(1, 3 * MOST_PEOPLE):
        strips.add(track, snapshot(track))
    held = [track for track in range(3 * MOST_PEOPLE) if strips.of(track)]
    assert len(held) == MOST_PEOPLE
    assert {0, 3 * MOST_PEOPLE - 1} <= set(held)


# ---- evidence is computed only when asked for


def test_a_prediction_runs_the_network_once_until_its_evidence_is_read(
    tiny_model, tiny_processor, both, monkeypatch
):
    calls = []
    forward = type(tiny_model).forward
    monkeypatch.setattr(
        type(tiny_model),
        "forward",
        lambda self, *args, **given: calls.append(1) or forward(self, *args, **given),
    )
    found = predict_video(both, tiny_model, tiny_processor)
    assert len(calls) == 1
    assert len(found.running) == 4
    asked = len(calls)
    assert asked > 1
    assert len(found.moments) == 4  # already known
    assert len(calls) == asked


def test_a_pickled_prediction_carries_its_evidence_and_no_model(tiny_model, tiny_processor, both):
    found = predict_video(both, tiny_model, tiny_processor)
    content = pickle.dumps(found)
    assert b"modeling_mma" not in content
    copied = pickle.loads(content)  # noqa: S301 - our own bytes
    pd.testing.assert_frame_equal(copied.moments, found.moments)
    assert copied.constant == found.constant
