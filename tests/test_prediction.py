"""What `prediction/` promises: on which frames the intensities rest, what the tables hold, what is refused."""

import io
import json
import weakref
from collections import Counter

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from mma_mrnnet import (
    LiveReader,
    MMAMRNNetConfig,
    MMAMRNNetForIntensity,
    load_pretrained,
    predict_image,
    predict_images,
    predict_people,
    predict_video,
    running_intensities,
    sliding_windows,
)
from mma_mrnnet.faces.detection import FaceDetector, align_face
from mma_mrnnet.faces.tracks import crop_faces
from mma_mrnnet.hub.checkpoints import CheckpointError, load_checkpoint
from mma_mrnnet.prediction import NO_FACE, clip_table, write_table
from mma_mrnnet.prediction.result import run_stage_2
from mma_mrnnet.prediction.torch_engine import TorchEngine
from mma_mrnnet.tables.cells import read_text_table
from mma_mrnnet.video.reading import VideoError, read_frames
from mma_mrnnet.video.writing import write_video

FACE = cv2.resize(astronaut()[:256, 96:352], (160, 160), interpolation=cv2.INTER_AREA)
GREY = np.full_like(FACE, 128)
REACTIONS = ["Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise"]
BOX = ["box_x", "box_y", "box_width", "box_height"]
AFFECT = [
    *(
        "valence",
        "arousal",
        "neutral",
        "anger",
        "disgust",
        "fear",
        "happiness",
        "sadness",
        "surprise",
    ),
    *(
        "AU01",
        "AU02",
        "AU04",
        "AU05",
        "AU06",
        "AU07",
        "AU09",
        "AU10",
        "AU11",
        "AU12",
        "AU15",
        "AU17",
        "AU20",
        "AU23",
    ),
    *("AU24", "AU25", "AU26"),
]

cv2.setNumThreads(1)


def clip(path, pattern, fps=4):
    """A clip of one frame a letter: F the face, at brightness and place of its own, anything else grey."""
    images = [
        np.roll(cv2.convertScaleAbs(FACE, alpha=0.6 + 0.4 * np.cos(number)), number % 5, axis=1)
        if letter == "F"
        else GREY
        for number, letter in enumerate(pattern)
    ]
    return write_video(path, images, fps)


@pytest.fixture
def predict(tiny_model, tiny_processor):
    return lambda path, **settings: predict_video(path, tiny_model, tiny_processor, **settings)


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "file": ["ä,b.mp4", "c.mp4"],
            "face": [True, False],
            "Fear": [0.25, np.nan],
            "error": [None, "no, face"],
        }
    )


def same(intensities, others):
    return list(intensities) == list(others) and np.array_equal(
        list(intensities.values()), list(others.values()), equal_nan=True
    )


# ---- a video


def test_the_table_has_one_row_for_each_frame_that_was_looked_at(predict, tmp_path):
    found = predict(
        clip(tmp_path / "clip.mp4", "F" * 8)
    )  # 2 s at 4 a second: frames 0, 2, 4, 6 are sampled
    assert found.frames["frame"].tolist() == [0, 2, 4, 6]
    assert found.frames["time_s"].tolist() == [0.0, 0.5, 1.0, 1.5]
    assert (found.frames_sampled, found.frames_with_face) == (4, 4)
    assert found.duration_s == pytest.approx(2.0)
    assert (found.error, found.warning) == (None, None)
    assert list(found.intensities) == REACTIONS
    assert all(0 <= value <= 1 for value in found.intensities.values())


def test_frames_between_sampled_ones_are_interpolated_if_every_frame_is_asked_for(
    predict, tmp_path
):
    path = clip(tmp_path / "clip.mp4", "F" * 25, fps=24)
    frames = predict(path, every_frame=True).frames
    assert frames["frame"].tolist() == list(range(25))
    assert not frames["interpolated"][::3].any()  # every third is searched
    assert frames["interpolated"].any()


def test_the_columns_are_the_documented_ones_and_nan_where_there_is_no_face(predict, tmp_path):
    path = clip(tmp_path / "clip.mp4", "FF..FF..")
    frames = predict(path).frames
    place = ["face", "interpolated", *BOX]
    assert frames.columns.tolist() == ["file", "track", "frame", "time_s", *place, *AFFECT]
    assert not frames["interpolated"].any()  # sampled frames are all searched
    assert frames["face"].tolist() == [True, False, True, False]
    assert frames["face"].dtype == bool
    assert frames["file"].tolist() == [str(path)] * 4
    assert frames["track"].tolist() == [0] * 4
    measured = frames[BOX + AFFECT].to_numpy(float)
    assert np.isfinite(measured[[0, 2]]).all()
    assert np.isnan(measured[[1, 3]]).all()


def test_the_box_of_a_row_is_in_pixels_of_the_frame(predict, tmp_path):
    (row,) = predict(clip(tmp_path / "clip.mp4", "F")).frames[BOX].to_numpy()
    (found,) = FaceDetector()(FACE)
    assert row == pytest.approx(found.box, abs=3)


@pytest.mark.parametrize(
    "settings",
    [{"fps": 0.5}, {"fps": 2.0}, {"fps": 3.1}, {"fps": 1000}, {"every_frame": True}],
    ids=str,
)
def test_the_rate_of_the_table_changes_no_bit_of_the_intensities(predict, tmp_path, settings):
    path = clip(tmp_path / "clip.mp4", "FFF.FF..F" * 2)
    usual, other = predict(path), predict(path, **settings)
    assert same(usual.intensities, other.intensities)
    assert usual.error is other.error is None
    assert usual.warning == other.warning


def test_the_rate_of_the_table_decides_on_its_rows(predict, tmp_path):
    path = clip(tmp_path / "clip.mp4", "F" * 8)
    assert predict(path, fps=1).frames["frame"].tolist() == [0, 4]
    assert predict(path, fps=4).frames["frame"].tolist() == list(range(8))
    assert predict(path, every_frame=True).frames["frame"].tolist() == list(range(8))


def test_rows_of_every_frame_agree_with_the_sampled_ones(predict, tmp_path):
    path = clip(tmp_path / "clip.mp4", "FF..FFFF" * 6)  # 36 crops: more than one chunk
    every = predict(path, every_frame=True).frames
    assert every["face"].tolist() == [letter == "F" for letter in "FF..FFFF" * 6]
    usual = predict(path).frames
    sampled = every[every["frame"] % 2 == 0].reset_index(drop=True)
    pd.testing.assert_frame_equal(sampled, usual, rtol=0, atol=1e-6)


def test_the_intensities_are_the_models_on_the_tables_own_affect(
    predict, tiny_model, tiny_processor, tmp_path
):
    found = predict(clip(tmp_path / "clip.mp4", "FF..FFFF"))
    affect = found.frames.loc[found.frames["face"], AFFECT].to_numpy(
        np.float32, copy=True
    )  # (3, 26)
    assert affect.shape == (3, 26)  # the sampled frame without a face is left out
    values, frame_mask = tiny_processor.pad([affect])
    assert frame_mask.tolist() == [[True, True, True, False]]
    with torch.no_grad():
        expected = tiny_model(affect=values, frame_mask=frame_mask).intensities[0]
    assert np.array_equal(list(found.intensities.values()), expected.tolist())


def test_the_affect_of_a_row_is_the_extractors_on_the_aligned_crop(tiny_mma, tiny_processor):
    (found,) = predict_image(FACE, tiny_mma, tiny_processor)
    (face,) = FaceDetector()(FACE)
    crop = align_face(FACE, face.landmarks, 32)
    assert np.array_equal(found.crop, crop)
    pixels = (
        torch.from_numpy(crop).permute(2, 0, 1)[None].float() - 127.5
    ) / 127.5  # (1, 3, 32, 32)
    with torch.no_grad():
        expected = tiny_mma(pixels).affect[0]
    assert list(found.affect) == AFFECT
    assert list(found.affect.values()) == pytest.approx(expected.tolist(), abs=1e-5)


def test_a_row_of_a_video_is_what_the_same_picture_gives_as_a_photo(
    predict, tiny_model, tiny_processor, tmp_path
):
    path = clip(tmp_path / "clip.mp4", "F")
    (frame,) = read_frames(path)
    (photo,) = predict_image(frame.image, tiny_model, tiny_processor)
    (row,) = predict(path).frames[AFFECT].to_numpy()
    assert row == pytest.approx(list(photo.affect.values()), abs=1e-6)


def test_a_clip_of_one_frame_is_a_valid_result(predict, tmp_path):
    found = predict(clip(tmp_path / "clip.mp4", "F"))
    assert found.error is None
    assert found.frames_sampled == found.frames_with_face == 1
    assert np.isfinite(list(found.intensities.values())).all()


def test_a_clip_without_a_face_has_nan_intensities_and_says_so(predict, tmp_path):
    found = predict(clip(tmp_path / "clip.mp4", "........"))
    assert found.error == NO_FACE == "no face in this video"
    assert np.isnan(list(found.intensities.values())).all()
    assert list(found.intensities) == REACTIONS
    assert (found.frames_sampled, found.frames_with_face) == (4, 0)
    with pytest.raises(ValueError, match="no face in this video"):
        found.ranked()


def test_faces_between_the_sampled_frames_alone_give_an_error_of_their_own(predict, tmp_path):
    path = clip(tmp_path / "clip.mp4", ".F.F.F.F")  # sampled are 0, 2, 4, 6
    found = predict(path, every_frame=True)
    assert found.error == "no face in the frames sampled at 2 a second"
    assert np.isnan(list(found.intensities.values())).all()
    assert found.frames_with_face == 4
    assert predict(path).error == NO_FACE


def test_more_faces_than_the_model_takes_are_thinned_with_a_warning(predict, tmp_path):
    found = predict(clip(tmp_path / "clip.mp4", "F" * 12))  # 6 sampled, 4 taken
    assert found.warning == "6 frames with a face thinned evenly to 4"
    assert found.frames_with_face == 6
    assert predict(clip(tmp_path / "short.mp4", "F" * 8)).warning is None


def test_other_settings_of_the_network_and_of_lengths_are_followed(
    tiny_config, tiny_processor, tmp_path
):
    settings = {"channels": ["expressions", "action_units"], "temporal_pooling": "attention"}
    model = MMAMRNNetForIntensity(MMAMRNNetConfig(**{**tiny_config.to_dict(), **settings}))
    model.save_pretrained(tmp_path)
    tiny_processor.length_policy = "truncate"
    tiny_processor.save_pretrained(tmp_path)
    video = clip(tmp_path / "clip.mp4", "F" * 12)  # 6 sampled, 4 taken
    found = predict_video(video, *load_checkpoint(tmp_path))
    assert found.warning == "6 frames with a face cut to the first 4"
    affect = torch.tensor(found.frames[AFFECT].to_numpy(np.float32))[None, :4]
    wanted = model.eval()(affect=affect).intensities[0].tolist()
    assert list(found.intensities.values()) == pytest.approx(wanted, abs=1e-6)


def test_what_a_truncated_file_lost_is_passed_on(predict, tmp_path):
    path = clip(tmp_path / "clip.mp4", "F" * 40)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    found = predict(path)
    assert "decoding stopped after" in found.warning
    assert "; " in found.warning
    assert found.warning.endswith("thinned evenly to 4")
    assert found.error is None
    assert 0 < found.duration_s < 10


def test_a_callers_model_keeps_the_mode_of_each_of_its_parts(
    predict, tiny_model, tiny_processor, tmp_path
):
    path = clip(tmp_path / "clip.mp4", "FFFF")
    before = predict(path)
    assert not any(module.training for module in tiny_model.modules())
    tiny_model.train()
    tiny_model.mma.eval()  # as if the extractor were frozen
    modes = [module.training for module in tiny_model.modules()]
    found = predict(path)
    assert same(before.intensities, found.intensities)  # dropout would differ from run to run
    pd.testing.assert_frame_equal(before.running, found.running)
    times_s, affect = found.frames["time_s"].to_numpy(), found.frames[AFFECT].to_numpy(np.float32)
    running_intensities(times_s, affect, tiny_model, tiny_processor)
    sliding_windows(times_s, affect, tiny_model, tiny_processor, 2.0)
    LiveReader(tiny_model, tiny_processor).add(FACE, 0.0)
    predict_image(FACE, tiny_model, tiny_processor)
    assert [module.training for module in tiny_model.modules()] == modes
    with pytest.raises(VideoError):
        predict(tmp_path / "none.mp4")
    assert [module.training for module in tiny_model.modules()] == modes


def test_a_model_may_be_named_by_its_folder_or_repository(
    tiny_model, tiny_processor, tmp_path, monkeypatch
):
    folder = tmp_path / "my-model"
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    path = clip(tmp_path / "clip.mp4", "FFFF")
    expected = predict_video(path, tiny_model, tiny_processor)
    wanted = pytest.approx(expected.intensities, abs=1e-6)
    for name in (folder, str(folder)):
        assert predict_video(path, model=name).intensities == wanted
    assert predict_people(path, folder)[0].intensities == wanted
    (by_name,), (by_model,) = (
        predict_image(FACE, folder),
        predict_image(FACE, tiny_model, tiny_processor),
    )
    assert by_name.affect == pytest.approx(by_model.affect, abs=1e-6)
    with pytest.raises(CheckpointError):
        predict_video(path, tmp_path / "nothing")
    asked = []
    monkeypatch.setattr(
        "mma_mrnnet.prediction.torch_engine.load_either",
        lambda *given: asked.append(given) or (tiny_model, tiny_processor),
    )
    predict_video(path, "me/my-model", revision="v2")
    assert asked == [("me/my-model", "v2")]


@pytest.mark.parametrize("fps", [1.0, 1.5])
def test_a_clip_with_fewer_frames_than_the_checkpoint_samples_says_so(predict, fps, tmp_path):
    path = write_video(tmp_path / "slow.mp4", [FACE] * 4, fps)
    assert predict(path).warning == (
        f"sampled at {fps:g} frames a second, below the checkpoint's 2"
    )


@pytest.mark.parametrize("fps", [2.0, 3.0, 29.97])
def test_a_clip_with_frames_enough_says_nothing_of_its_rate(predict, fps, tmp_path):
    path = write_video(tmp_path / "clip.mp4", [FACE] * round(2 * fps), fps)
    assert predict(path).warning is None


def test_frames_in_memory_give_what_their_file_gives(tiny_model, tiny_processor, tmp_path):
    path = clip(tmp_path / "clip.mp4", "FF.F")
    expected = predict_video(path, tiny_model, tiny_processor)
    frames = np.stack([frame.image for frame in read_frames(path)])
    found = predict_video(frames, tiny_model, tiny_processor, fps=4)
    assert same(found.intensities, expected.intensities)
    assert found.file == "video of 4 frames"
    assert found.duration_s == 1.0
    assert found.frames_sampled == expected.frames_sampled == 2
    dense = predict_video(frames, tiny_model, tiny_processor, fps=4, every_frame=True)
    assert dense.frames_sampled == 4
    with pytest.raises(VideoError, match="give fps=, their frames per second"):
        predict_video(frames, tiny_model, tiny_processor)


def test_a_video_may_be_bytes_an_open_file_or_a_data_sets_entry(predict, tmp_path):
    path = clip(tmp_path / "clip.mp4", "FF.F")
    expected = predict(path)
    content = path.read_bytes()
    for video in (content, io.BytesIO(content), {"path": None, "bytes": content}, path.as_uri()):
        found = predict(video)
        assert same(found.intensities, expected.intensities)
        assert found.frames["file"].tolist() == [found.file] * 2
    with pytest.raises(VideoError, match=r"^video of 5 bytes: is text, not a video"):
        predict(b"hello")
    with pytest.raises(VideoError, match=r"^a text of [\d,]+ characters is no path") as caught:
        predict(content.decode("latin-1"))
    assert len(str(caught.value)) < 500


def test_a_photo_may_be_bytes_an_open_file_a_url_or_a_tensor(
    tiny_mma, tiny_processor, tmp_path, monkeypatch
):
    path = tmp_path / "photo.png"
    Image.fromarray(FACE).save(path)
    (expected,) = predict_image(FACE, tiny_mma, tiny_processor)
    monkeypatch.setenv("HOME", str(tmp_path))
    content = path.read_bytes()
    forms = [content, io.BytesIO(content), {"path": None, "bytes": content}, path.as_uri()]
    for photo in (*forms, "~/photo.png", torch.from_numpy(FACE)):
        (found,) = predict_image(photo, tiny_mma, tiny_processor)
        assert found.affect == expected.affect
    with pytest.raises(ValueError, match=r"a photo cannot be read from builtins.int; accepted are"):
        predict_image(3, tiny_mma, tiny_processor)
    with pytest.raises(ValueError, match=r"^photo of 5 bytes: not an image"):
        predict_image(b"hello", tiny_mma, tiny_processor)


def test_progress_counts_the_seconds_of_each_frame_up_to_the_whole_clip(predict, tmp_path):
    path = clip(tmp_path / "clip.mp4", "FFFFFF.F", fps=2)
    seen = []
    quiet = predict(path)
    assert predict(path, progress=lambda *times: seen.append(times)) == quiet
    assert seen == [*((second, 4.0) for second in np.arange(0, 4, 0.5)), (4.0, 4.0)]
    with pytest.raises(KeyboardInterrupt):  # a caller may stop the work
        predict(path, progress=lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))


def test_what_the_checkpoint_says_of_itself_reaches_the_prediction(predict, tiny_model, tmp_path):
    tiny_model.config.calibrated, tiny_model.config.relative_labels = True, False
    tiny_model.config.simulated_labels = True
    units = tiny_model.config.mma_config.action_units
    tiny_model.config.mma_config.supervised_action_units = [
        unit for unit in units if unit not in (1, 23)
    ]
    found = predict(clip(tmp_path / "clip.mp4", "F"))
    assert (found.calibrated, found.relative, found.simulated) == (True, False, True)
    assert found.prior_only == ("AU01", "AU23")


def test_ranked_is_strongest_first_and_refused_where_outputs_do_not_compare(
    predict, tiny_model, tmp_path
):
    path = clip(tmp_path / "clip.mp4", "F")
    with pytest.raises(ValueError, match="not calibrated"):
        predict(path).ranked()
    tiny_model.set_calibration(torch.ones(7), torch.linspace(-0.3, 0.3, 7))
    ranked = predict(path).ranked()
    values = [value for _, value in ranked]
    assert values == sorted(values, reverse=True)
    assert {name for name, _ in ranked} == set(REACTIONS)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf"), "2"])
def test_a_rate_that_is_no_positive_number_is_refused(predict, tmp_path, fps):
    with pytest.raises(ValueError, match="fps must be a finite number above 0"):
        predict(clip(tmp_path / "clip.mp4", "F"), fps=fps)


def test_a_model_without_its_processor_is_refused_and_the_other_way_round(
    tiny_model, tiny_processor
):
    with pytest.raises(ValueError, match="model and processor together"):
        predict_video("clip.mp4", tiny_model)
    with pytest.raises(ValueError, match="model and processor together"):
        predict_images([FACE], processor=tiny_processor)


def test_a_stage_1_model_is_refused_for_a_video(tiny_mma, tiny_processor, tmp_path):
    with pytest.raises(ValueError, match="stage-2"):
        predict_video(clip(tmp_path / "clip.mp4", "F"), tiny_mma, tiny_processor)


def test_a_missing_video_is_a_video_error(predict, tmp_path):
    with pytest.raises(VideoError, match="no such file"):
        predict(tmp_path / "none.mp4")


def test_crops_and_pictures_of_a_long_clip_are_not_held(predict, monkeypatch, tmp_path):
    references, alive = {"image": [], "crop": []}, {"image": [], "crop": []}

    def watched(kind, items):
        for item in items:
            references[kind].append(weakref.ref(item.image if kind == "image" else item.crops[0]))
            alive[kind].append(sum(reference() is not None for reference in references[kind]))
            yield item

    monkeypatch.setattr(
        "mma_mrnnet.prediction.video.crop_faces",
        lambda frames, size: watched("crop", crop_faces(watched("image", frames), size)),
    )
    monkeypatch.setattr("mma_mrnnet.faces.affect.CHUNK", 5)
    monkeypatch.setattr("mma_mrnnet.faces.strips.MOST", 2)
    predict(clip(tmp_path / "long.mp4", "F" * 40), every_frame=True)
    assert len(alive["image"]) == len(alive["crop"]) == 40
    assert max(alive["image"]) <= 2  # the frame in work and the one before it
    # The chunk that is filled, the one before it, and twice what a finished strip has.
    assert max(alive["crop"]) <= 2 * 5 + 2 * 2


# ---- photos


def two_faces():
    scene = np.full((320, 480, 3), 128, np.uint8)
    scene[:160, :160] = FACE
    scene[:, 160:] = cv2.resize(FACE, (320, 320))
    return scene


def test_a_photo_gives_one_prediction_a_face_the_largest_first(tiny_mma, tiny_processor):
    none, one, two = predict_images([GREY, FACE, two_faces()], tiny_mma, tiny_processor)
    assert (len(none), len(one), len(two)) == (0, 1, 2)
    assert two[0].box[2] > two[1].box[2]
    assert two[1].box == pytest.approx(one[0].box, abs=6)
    assert two[0].crop.shape == (32, 32, 3)
    assert 0.7 <= two[0].score <= 1


def test_no_photos_give_no_predictions(tiny_mma, tiny_processor):
    assert predict_images([], tiny_mma, tiny_processor) == []


def test_files_pil_images_and_arrays_give_the_same(tiny_mma, tiny_processor, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(FACE).save(path)
    forms = [path, str(path), Image.fromarray(FACE), Image.fromarray(FACE).convert("RGBA"), FACE]
    predictions = predict_images(forms, tiny_mma, tiny_processor)
    assert all(found[0].affect == predictions[0][0].affect for found in predictions)


def test_a_stage_2_model_gives_what_its_stage_1_gives(tiny_model, tiny_processor):
    (whole,) = predict_image(FACE, tiny_model, tiny_processor)
    (alone,) = predict_image(FACE, tiny_model.mma, tiny_processor)
    assert whole.affect == alone.affect


def test_a_grey_photo_is_read_as_rgb(tiny_mma, tiny_processor):
    (found,) = predict_image(Image.fromarray(FACE).convert("L"), tiny_mma, tiny_processor)
    assert (found.crop[..., 0] == found.crop[..., 2]).all()


def test_a_photo_that_a_camera_stored_lying_is_turned_upright(tiny_mma, tiny_processor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn a quarter clockwise to show"
    stored = Image.fromarray(FACE).transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=100, subsampling=0)
    (found,) = predict_image(tmp_path / "photo.jpg", tiny_mma, tiny_processor)
    (usual,) = predict_image(FACE, tiny_mma, tiny_processor)
    assert found.box == pytest.approx(usual.box, abs=3)


def test_a_file_that_is_no_image_is_a_value_error_with_its_name(tiny_mma, tiny_processor, tmp_path):
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    Image.fromarray(FACE).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    Image.fromarray(FACE).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    for name in ("text.jpg", "empty.png", "cut.jpg", "cut.png", "."):
        with pytest.raises(ValueError, match="not an image that can be read") as caught:
            predict_images([tmp_path / name], tiny_mma, tiny_processor)
        assert str(caught.value).startswith(str(tmp_path / name))


def test_a_photo_that_is_not_there_is_a_file_not_found_error(tiny_mma, tiny_processor, tmp_path):
    with pytest.raises(FileNotFoundError):
        predict_image(tmp_path / "none.jpg", tiny_mma, tiny_processor)


def test_one_path_where_a_list_belongs_is_refused(tiny_mma, tiny_processor):
    with pytest.raises(ValueError, match="list"):
        predict_images("photo.jpg", tiny_mma, tiny_processor)


@pytest.mark.parametrize(
    "array", [FACE[..., 0], FACE.astype(np.float32), np.dstack([FACE, FACE[..., :1]])]
)
def test_an_array_that_is_no_rgb_picture_is_refused(tiny_mma, tiny_processor, array):
    with pytest.raises(ValueError, match=r"\(H, W, 3\) uint8 RGB"):
        predict_image(array, tiny_mma, tiny_processor)


# ---- tables


def test_a_clip_table_has_the_documented_columns(predict, tmp_path):
    paths = [clip(tmp_path / "a.mp4", "FFFF"), clip(tmp_path / "b.mp4", "....")]
    rows = clip_table(predict(path) for path in paths)
    counted = ["frames_sampled", "frames_with_face"]
    assert rows.columns.tolist() == [
        "file",
        "track",
        "duration_s",
        *counted,
        *REACTIONS,
        "error",
        "note",
    ]
    assert rows["file"].tolist() == [str(path) for path in paths]
    assert rows[["track", *counted]].to_numpy().tolist() == [[0, 2, 2], [0, 2, 0]]
    assert rows["duration_s"].tolist() == [1.0, 1.0]
    assert rows["error"].isna().tolist() == [True, False]
    assert rows["error"][1] == NO_FACE
    assert rows[REACTIONS].notna().to_numpy().tolist() == [[True] * 7, [False] * 7]


def test_a_table_comes_back_from_csv_and_parquet_as_it_was(table, tmp_path):
    write_table(table, tmp_path / "table.csv")
    write_table(table, tmp_path / "table.PARQUET")
    for read in (pd.read_csv(tmp_path / "table.csv"), pd.read_parquet(tmp_path / "table.PARQUET")):
        assert read["file"].tolist() == ["ä,b.mp4", "c.mp4"]
        assert read["face"].tolist() == [True, False]
        assert read["Fear"].isna().tolist() == [False, True]
        assert read["Fear"][0] == 0.25
        assert read["error"].isna().tolist() == [True, False]


def test_json_is_strict_and_writes_null_for_nan(table, tmp_path):
    write_table(table, tmp_path / "table.json")

    def refuse(literal):
        raise AssertionError(literal)

    rows = json.loads((tmp_path / "table.json").read_text("utf-8"), parse_constant=refuse)
    assert rows == [
        {"file": "ä,b.mp4", "face": True, "Fear": 0.25, "error": None},
        {"file": "c.mp4", "face": False, "Fear": None, "error": "no, face"},
    ]


def test_an_earlier_table_is_replaced(table, tmp_path):
    for rows in (table, table[:1]):
        write_table(rows, tmp_path / "table.csv")
    assert len(pd.read_csv(tmp_path / "table.csv")) == 1
    assert Counter(path.name for path in tmp_path.iterdir()) == {"table.csv": 1}


def test_a_table_that_cannot_be_written_leaves_the_old_one_and_nothing_else(table, tmp_path):
    target = tmp_path / "table.parquet"
    write_table(table, target)
    before = target.read_bytes()
    with pytest.raises(Exception, match="Fear"):
        write_table(
            table.assign(Fear=[1, "one"]), target
        )  # a column of two types is nothing that parquet can hold
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["table.parquet"]


def test_an_unknown_ending_or_a_place_that_cannot_be_written_is_refused_before_writing(
    table, tmp_path
):
    (tmp_path / "folder.csv").mkdir()
    for name, message in (
        ("table.xlsx", r"\.csv, \.json or \.parquet; got '\.xlsx'"),
        ("table", "no ending"),
        ("none/table.csv", "does not exist"),
        ("folder.csv", "is a folder"),
    ):
        with pytest.raises(ValueError, match=message):
            write_table(table, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.csv"]


# ---- the checkpoint that ships


def test_the_shipped_checkpoint_sees_the_astronaut_smile():
    (found,) = predict_image(astronaut())
    assert found.affect["happiness"] > found.affect["neutral"]
    assert found.affect["valence"] > 0


def test_the_shipped_checkpoint_predicts_without_a_model_given(tmp_path):
    model, processor = load_pretrained()
    path = clip(tmp_path / "clip.mp4", "FFFF")
    found, given = predict_video(path), predict_video(path, model, processor)
    assert found.intensities == pytest.approx(given.intensities, abs=1e-5)  # two engines
    assert all(0 <= value <= 1 for value in found.intensities.values())
    assert list(found.intensities) == REACTIONS


def test_changing_a_loaded_checkpoint_does_not_change_the_default_one(tmp_path):
    path = clip(tmp_path / "clip.mp4", "FF")
    before = predict_video(path).intensities
    model, _ = load_pretrained()
    with torch.no_grad():
        model.dense.weight.zero_()
    assert same(before, predict_video(path).intensities)


# ---- real clips


@pytest.mark.parametrize(
    ("name", "sampled", "with_face", "error"),
    [
        # 75 frames at 25 a second are 3 s: 6 samples; 72 at 30 are 2.4 s: 5; 95 at 23.7 are 4.0 s: 8 or 9.
        ("grid_swiz3n.mpg", (6,), range(6, 7), None),
        ("single_face.mp4", (5,), range(5, 6), None),
        ("no_face.mp4", (8, 9), range(1), NO_FACE),
    ],
)
def test_real_clips_end_to_end(shared_clips, predict, name, sampled, with_face, error):
    found = predict(shared_clips / name)
    assert found.frames_sampled in sampled
    assert found.frames_with_face in with_face
    assert found.error == error
    assert np.isnan(list(found.intensities.values())).all() == (error is not None)


def test_two_ways_to_ask_for_frames_at_once_are_refused(tmp_path):
    with pytest.raises(ValueError, match="either fps or every_frame"):
        predict_video(tmp_path / "any.mp4", fps=5.0, every_frame=True)


def test_a_row_says_what_its_numbers_are(tiny_model, tiny_processor, tmp_path):
    tiny_model.config.simulated_labels = True
    clip = write_video(tmp_path / "face.mp4", [astronaut()] * 2, 2)
    prediction = predict_video(clip, tiny_model, tiny_processor)
    assert prediction.summary()["note"].split("; ") == [
        "rests on 2 frames with a face: too few to rely on",
        "learnt from a simulator, not from people's reports",
        "relative within the clip",
        "not calibrated: targets do not compare",
    ]


def test_a_row_without_numbers_has_no_caveats_about_them(tiny_model, tiny_processor, tmp_path):
    clip = write_video(tmp_path / "grey.mp4", [np.full((64, 64, 3), 128, np.uint8)] * 4, 2)
    assert predict_video(clip, tiny_model, tiny_processor).summary()["note"] == ""


def test_what_is_no_model_is_refused_in_one_line(tmp_path, tiny_processor):
    with pytest.raises(ValueError, match=r"a stage-2 model, a folder or the name.*; got int"):
        predict_video(tmp_path / "clip.mp4", 3, tiny_processor)


def test_a_text_that_a_spreadsheet_would_run_is_disarmed_in_csv_alone(tmp_path):
    names = ["=cmd|' /C calc'!A0", "+a.mp4", "@b.mp4", "-c.mp4", "-1", "d=1.mp4"]
    table = pd.DataFrame({"file": names, "=Joy": [-1.0, 0, 1, 2, 3, 4], "error": None})
    write_table(table, tmp_path / "table.csv")
    seen = pd.read_csv(tmp_path / "table.csv")
    assert list(seen) == ["file", "'=Joy", "error"]
    assert seen["file"].tolist() == [*("'" + name for name in names[:4]), *names[4:]]
    assert seen["'=Joy"].tolist() == [-1.0, 0, 1, 2, 3, 4]
    back = read_text_table(tmp_path / "table.csv")
    assert (back.header, back.cells(0)) == (["file", "=Joy", "error"], names)
    write_table(table, tmp_path / "table.json")
    assert [row["file"] for row in json.loads((tmp_path / "table.json").read_text())] == names


def test_intensities_that_overflow_are_an_error_and_not_a_result(tiny_model, tiny_processor):
    with torch.no_grad():
        tiny_model.dense.bias.fill_(3e38)
        tiny_model.output.weight.fill_(10.0)  # each product overflows
        tiny_model.output.weight[:, 0] = -10.0  # and infinity minus infinity is NaN
    engine = TorchEngine(tiny_model, tiny_processor)
    clip = np.zeros((3, len(engine.facts.input_names)), np.float32)
    with pytest.raises(ValueError, match="gave NaN or infinity as intensities"):
        run_stage_2([clip], engine)
    assert np.isnan(run_stage_2([clip[:0]], engine)).all()  # no frame, no damage
