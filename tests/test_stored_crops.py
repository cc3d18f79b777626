"""What `predict` says of the folders that `mma-mrnnet crop` writes: what it says of their videos."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
from skimage.data import astronaut

from mma_mrnnet import cli, predict_people, predict_video
from mma_mrnnet.crops.store import CropSettings, store_crops
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.video.reading import VideoError
from mma_mrnnet.video.writing import write_video

FACE = cv2.resize(astronaut()[:256, 96:352], (160, 160), interpolation=cv2.INTER_AREA)
GREY = np.full_like(FACE, 128)
SIZE = 32  # of the tiny model


@pytest.fixture
def video(tmp_path):
    """Four frames a second; the face is in the first, third and last second."""
    return write_video(tmp_path / "clip.mp4", [*[FACE] * 4, *[GREY] * 4, *[FACE] * 8], 4)


def store(video, fps=2.0):
    folder = video.parent / "crops" / video.name.removesuffix(".mp4")
    folder.parent.mkdir(exist_ok=True)
    store_crops(video, folder, CropSettings(fps, SIZE, "png"), FaceDetector())
    return folder


@pytest.mark.parametrize(
    ("stored_fps", "settings"),
    [(2.0, {}), (None, {}), (None, {"fps": 4}), (None, {"every_frame": True})],
)
def test_stored_crops_give_what_their_video_gives(
    video, tiny_model, tiny_processor, stored_fps, settings
):
    wanted = predict_video(video, tiny_model, tiny_processor, **settings)
    (found,) = predict_people(store(video, stored_fps), tiny_model, tiny_processor, **settings)
    assert found.intensities == wanted.intensities
    assert (found.duration_s, found.error) == (wanted.duration_s, None)
    boxes = ["box_x", "box_y", "box_width", "box_height"]
    assert found.frames[boxes].isna().all(axis=None)
    columns = [name for name in wanted.frames if name not in ("file", *boxes)]
    pd.testing.assert_frame_equal(found.frames[columns], wanted.frames[columns])


def test_crops_without_a_face_say_so(tmp_path, tiny_model, tiny_processor):
    video = write_video(tmp_path / "clip.mp4", [GREY] * 8, 4)
    found = predict_video(store(video), tiny_model, tiny_processor)
    assert found.error == "no face in this video"
    assert len(found.frames) == 4


@pytest.mark.parametrize("settings", [{"fps": 1}, {"every_frame": True}])
def test_crops_at_another_rate_are_refused_by_name(video, tiny_model, tiny_processor, settings):
    folder = store(video)
    with pytest.raises(VideoError, match="holds crops at 2 a second, not"):
        predict_video(folder, tiny_model, tiny_processor, **settings)


def test_a_folder_without_an_index_and_one_with_a_missing_crop_are_refused(
    video, tmp_path, tiny_model, tiny_processor
):
    with pytest.raises(VideoError, match="none that `mma-mrnnet crop` made of a clip"):
        predict_video(tmp_path, tiny_model, tiny_processor)
    folder = store(video)
    (folder / "00001.png").unlink()
    with pytest.raises(VideoError, match=r"1 of its crops are missing, first 00001\.png"):
        predict_video(folder, tiny_model, tiny_processor)


def test_the_command_reads_a_folder_of_crops_and_each_clip_in_it(
    video, tmp_path, tiny_model, tiny_processor, settings_kept, capsys
):
    tiny_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    folder = store(video)
    for word in (folder, folder.parent):
        words = ["predict", word, "--out", tmp_path / "out.json", "--model", tmp_path / "model"]
        assert cli.main([*map(str, words)]) == 0
        (row,) = json.loads((tmp_path / "out.json").read_text("utf-8"))
        assert (row["file"], row["frames_with_face"], row["frames_sampled"]) == (str(folder), 6, 8)
    assert "a face in 6 of 8 frames" in capsys.readouterr().out
    words = ["predict", folder, "--annotate", tmp_path / "a.mp4", "--model", tmp_path / "model"]
    assert cli.main([*map(str, words)]) == 1
    assert "is a folder of crops, with no frames to draw on" in capsys.readouterr().err
