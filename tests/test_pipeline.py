"""Videos in, named intensities out, through transformers' own `pipeline`."""

import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from transformers import AutoVideoProcessor, pipeline
from transformers.dynamic_module_utils import get_imports
from transformers.pipelines.pt_utils import KeyDataset

from mma_mrnnet import MMAMRNNetConfig, MMAMRNNetForIntensity, MMAMRNNetForVideoClassification
from mma_mrnnet.hub.checkpoints import load_checkpoint, pretrained_folder
from mma_mrnnet.hub.export import PIPELINE_FILE, export_checkpoint
from mma_mrnnet.model.labels import REACTIONS
from mma_mrnnet.prediction import predict_video
from mma_mrnnet.prediction.pipeline import FacialExpressionIntensityPipeline
from mma_mrnnet.registration import TASK
from mma_mrnnet.video.reading import VideoError, read_frames
from mma_mrnnet.video.sources import local_file
from mma_mrnnet.video.writing import write_video

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "face.mp4", [astronaut()] * 10, 5)


@pytest.fixture(scope="module")
def shorter(tmp_path_factory):
    """Another clip, with other numbers: shorter, and darker."""
    return write_video(tmp_path_factory.mktemp("clip") / "shorter.mp4", [astronaut() // 2] * 3, 2)


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """A clip without a face."""
    return write_video(
        tmp_path_factory.mktemp("clip") / "grey.mp4", [np.full((64, 64, 3), 128, np.uint8)] * 4, 4
    )


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path):
    folder = tmp_path / "checkpoint"
    tiny_model.set_calibration(torch.rand(7) * 0.5 + 0.25, torch.rand(7) * 0.2)
    tiny_model.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture
def pipe(checkpoint):
    return pipeline(TASK, model=str(checkpoint))


def intensities(path, checkpoint):
    return [
        {"label": name, "score": value}
        for name, value in predicted(path, checkpoint).intensities.items()
    ]


def predicted(path, checkpoint):
    return predict_video(path, *load_checkpoint(checkpoint))


# One video ---------------------------------------------------------------------------------------------------------


def test_the_task_gives_every_label_with_what_predict_video_says(pipe, checkpoint, clip):
    rows = pipe(str(clip))
    assert [row["label"] for row in rows] == list(REACTIONS)
    assert rows == intensities(clip, checkpoint)


def test_without_a_model_the_task_takes_the_checkpoint_that_ships():
    assert pipeline(TASK).model.config.name_or_path == str(pretrained_folder())


@pytest.mark.parametrize(
    "kind",
    [
        Path,
        lambda path: path.read_bytes(),
        lambda path: io.BytesIO(path.read_bytes()),
        lambda path: {"path": str(path), "bytes": None},
        lambda path: {"path": "somewhere/else.mp4", "bytes": path.read_bytes()},
    ],
)
def test_a_path_bytes_a_file_object_and_a_data_sets_entry_give_the_same(
    kind, pipe, checkpoint, clip
):
    assert pipe(kind(clip)) == intensities(clip, checkpoint)


def test_frames_in_memory_are_one_video_at_the_rate_that_is_given(pipe, checkpoint, clip):
    images = [Image.fromarray(frame.image) for frame in read_frames(clip)]
    array = np.stack([np.asarray(image) for image in images])
    expected = intensities(clip, checkpoint)
    for video in (images, array, torch.from_numpy(array)):
        assert_same_intensities(pipe(video, fps=5), expected)
    for found in pipe([array, str(clip)], fps=5):
        assert_same_intensities(found, expected)


def assert_same_intensities(found, expected):
    """Batches of another size move the last bits."""
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    scores = [row["score"] for row in expected]
    assert [row["score"] for row in found] == pytest.approx(scores, abs=1e-4)


def test_a_decoded_entry_of_datasets_is_read_from_its_bytes(pipe, checkpoint, clip):
    class VideoDecoder:
        _hf_encoded = {"path": "clip.mp4", "bytes": clip.read_bytes()}  # noqa: RUF012 - as theirs

    assert pipe(VideoDecoder()) == intensities(clip, checkpoint)


def test_top_k_ranks_the_strongest(pipe, checkpoint, clip):
    ranked = sorted(intensities(clip, checkpoint), key=lambda row: -row["score"])
    assert pipe(clip, top_k=2) == ranked[:2]
    assert pipe(clip, top_k=99) == ranked


def test_the_frames_are_those_of_predict_video_and_fps_changes_them_alone(pipe, checkpoint, clip):
    shown = pipe(clip, return_frames=True)
    prediction = predicted(clip, checkpoint)
    assert shown["scores"] == list(intensities(clip, checkpoint))
    assert (shown["duration_s"], shown["note"]) == (
        prediction.duration_s,
        "; ".join(prediction.notes()),
    )
    assert shown["frames"] == prediction.frames.to_dict("records")
    assert len(shown["frames"]) == 4  # 2 s at 2 a second
    finer = pipe(clip, return_frames=True, fps=5)
    assert (len(finer["frames"]), finer["scores"]) == (10, shown["scores"])


def test_frames_without_a_face_hold_none_so_that_json_can_hold_them(pipe, tmp_path):
    half = write_video(tmp_path / "half.mp4", [*[astronaut()] * 4, *[astronaut() * 0] * 4], 4)
    rows = pipe(half.read_bytes(), return_frames=True)["frames"]
    assert [row["face"] for row in rows] == [True, True, False, False]
    assert rows[0]["valence"] is not None
    assert rows[3]["valence"] is rows[3]["box_x"] is None
    assert {row["file"] for row in rows} == {f"video of {half.stat().st_size:,} bytes"}
    json.dumps(rows, allow_nan=False)


# Several videos ----------------------------------------------------------------------------------------------------

COLUMNS = {
    "list": lambda paths: paths,
    "tuple": tuple,
    "generator": lambda paths: (path for path in paths),
    "map": lambda paths: map(str, paths),
    "column": lambda paths: datasets.Dataset.from_dict({"video": paths})["video"],
    "column of videos": lambda paths: video_column(paths)["video"],
    "streamed column": lambda paths: video_column(paths).to_iterable_dataset()["video"],
    "KeyDataset": lambda paths: KeyDataset(datasets.Dataset.from_dict({"video": paths}), "video"),
    "KeyDataset of videos": lambda paths: KeyDataset(video_column(paths), "video"),
}


def video_column(paths):
    return datasets.Dataset.from_dict({"video": paths}).cast_column(
        "video", datasets.Video(decode=False)
    )


@pytest.mark.parametrize("kind", COLUMNS)
def test_several_videos_come_in_order(kind, pipe, checkpoint, clip, shorter):
    expected = [intensities(path, checkpoint) for path in (clip, shorter)]
    assert expected[0] != expected[1]
    outputs = pipe(COLUMNS[kind]([str(clip), str(shorter)]))
    assert isinstance(outputs, list) == (kind in ("list", "tuple", "column", "column of videos"))
    assert list(outputs) == expected


@pytest.mark.parametrize("batch_size", [2, 8])
def test_batches_give_the_same_numbers_in_the_same_order(
    batch_size, pipe, checkpoint, clip, shorter
):
    videos = [clip, shorter.read_bytes(), clip]
    expected = [intensities(path, checkpoint) for path in (clip, shorter, clip)]
    assert pipe(videos, batch_size=batch_size) == expected
    assert list(pipe((video for video in videos), batch_size=batch_size)) == expected


def test_videos_of_a_generator_are_asked_for_one_by_one(pipe, clip):
    asked = []
    outputs = pipe(asked.append(number) or clip for number in range(100))
    next(iter(outputs))
    assert len(asked) < 5


@pytest.mark.parametrize("batch_size", [1, 2])
def test_one_bad_video_ends_the_call_or_stands_as_an_error_in_its_place(
    batch_size, pipe, checkpoint, clip, grey
):
    videos = [clip, "nowhere.mp4", grey, b"", None, clip]
    with pytest.raises(VideoError, match=r"^nowhere\.mp4: no such file"):
        pipe(videos, batch_size=batch_size)
    first, *bad, last = pipe(
        videos, batch_size=batch_size, on_error="return", top_k=7, return_frames=True
    )
    assert first["scores"] == last["scores"]
    assert sorted(first["scores"], key=lambda row: row["label"]) == intensities(clip, checkpoint)
    said = [
        "nowhere.mp4: no such file",
        f"{grey}: no face in this video",
        "video of 0 bytes: is empty",
    ]
    for output, words in zip(
        bad, [*said, "a video cannot be read from builtins.NoneType"], strict=True
    ):
        assert list(output) == ["error"]
        assert output["error"].startswith(words)


def test_no_videos_give_nothing(pipe):
    assert pipe([]) == pipe(()) == pipe(datasets.Dataset.from_dict({"video": []})["video"]) == []
    assert (
        list(pipe(x for x in ()))
        == list(pipe(KeyDataset(datasets.Dataset.from_dict({"video": []}), "video")))
        == []
    )


# What is refused ---------------------------------------------------------------------------------------------------


def test_a_clip_without_a_face_is_an_error_in_words(pipe, grey):
    with pytest.raises(ValueError, match=r"grey\.mp4: no face in this video"):
        pipe(str(grey))


def test_no_input_a_folder_text_and_arrays_are_errors_in_words(pipe, tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    whole = datasets.Dataset.from_dict({"video": ["clip.mp4"]})
    for given, said in [
        (None, "cannot be read from builtins.NoneType"),
        (tmp_path, "is a folder, and none that `mma-mrnnet crop` made"),
        (tmp_path / "text.mp4", "is text, not a video"),
        (np.zeros((2, 8, 8, 3), np.uint8), "give fps=, their frames per second"),
        (whole, r"give one column, such as dataset\['video'\]"),
    ]:
        with pytest.raises(VideoError, match=said):
            pipe(given)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"top_k": 0}, "top_k must be a whole number above 0; got 0"),
        ({"top_k": 1.5}, "top_k must be a whole number above 0; got 1.5"),
        ({"fps": float("inf")}, "fps must be a finite number above 0; got inf"),
        ({"timeout": -1}, "timeout must be a finite number"),
        ({"max_bytes": True}, "max_bytes must be a whole number"),
        ({"on_error": "ignore"}, "on_error must be one of raise, return; got 'ignore'"),
    ],
)
def test_options_out_of_range_are_refused_whatever_is_done_with_bad_videos(
    option, said, pipe, checkpoint, clip
):
    with pytest.raises(ValueError, match=said):
        pipe([clip], **{"on_error": "return", **option})
    with pytest.raises(ValueError, match=said):
        pipeline(TASK, model=str(checkpoint), **option)


def test_an_option_that_there_is_not_is_refused(pipe, clip):
    with pytest.raises(TypeError, match="every_frames"):
        pipe(clip, every_frames=True)


def test_an_uncalibrated_model_is_not_ranked(tiny_model, tiny_processor, clip):
    pipe = pipeline(TASK, model=tiny_model, video_processor=tiny_processor)
    assert len(pipe(clip)) == 7
    with pytest.raises(ValueError, match="not calibrated"):
        pipe(clip, top_k=2)


def test_models_that_give_no_intensities_of_videos_are_refused(tiny_mma, tiny_processor):
    features = MMAMRNNetForIntensity(
        MMAMRNNetConfig(feature_names=["smile"], num_frames=4, hidden_size=8)
    )
    for model, said in (
        (tiny_mma, "a stage-1 model"),
        (features, "reads tables of features, not videos"),
    ):
        with pytest.raises(ValueError, match=said):
            pipeline(TASK, model=model, video_processor=tiny_processor)


def test_the_limits_reach_the_reading_and_a_fault_of_ours_is_no_video_error(
    pipe, clip, monkeypatch
):
    with pytest.raises(VideoError, match="larger than 10 bytes"):
        pipe(io.BytesIO(clip.read_bytes()), max_bytes=10)
    seen = {}

    def broken(video, **limits):
        seen.update(limits)
        raise RuntimeError("ours")

    monkeypatch.setattr("mma_mrnnet.video.sources.local_file", broken)
    with pytest.raises(RuntimeError, match="ours"):
        pipe([clip], on_error="return", timeout=3)
    assert seen["timeout"] == 3
    assert local_file is not broken


# It travels --------------------------------------------------------------------------------------------------------


def test_what_is_saved_loads_again_and_gives_the_same(pipe, checkpoint, clip, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "pipeline_mma_mrnnet.py").is_file()
    for task in (TASK, None):  # None: as the config says
        again = pipeline(task, model=str(tmp_path / "saved"), trust_remote_code=True)
        assert type(again) is FacialExpressionIntensityPipeline
        assert again(clip) == intensities(clip, checkpoint)
        again.save_pretrained(tmp_path / f"again {task}")
    model, processor = load_checkpoint(tmp_path / "again None")
    assert pipeline(TASK, model=model, video_processor=processor)(clip) == pipe(
        clip
    )  # loaded so, no code is trusted
    with pytest.raises(ValueError, match="is a file; a pipeline is saved into a folder"):
        pipe.save_pretrained(checkpoint / "config.json")


def test_a_model_saved_away_from_its_pipelines_file_forgets_it(pipe, clip, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    model, processor = load_checkpoint(tmp_path / "saved")
    for place in (tmp_path / "saved", tmp_path / "elsewhere"):
        model.save_pretrained(place)
        processor.save_pretrained(place)
        assert ("custom_pipelines" in json.loads((place / "config.json").read_text())) == (
            place.name == "saved"
        )
    assert pipeline(TASK, model=str(tmp_path / "elsewhere"))(clip) == pipe(clip)


TRAVELLED = """
import sys, json
from transformers import pipeline
for task in ("facial-expression-intensity", None):
    assert task is None or "mma_mrnnet" not in sys.modules
    print(json.dumps(pipeline(task, model=sys.argv[1], trust_remote_code=True)(sys.argv[2])))
"""


@pytest.mark.slow
def test_an_export_brings_its_pipeline_where_the_package_was_not_imported(
    checkpoint, clip, tmp_path
):
    place = export_checkpoint(checkpoint, tmp_path / "hub")
    alone = {
        "PYTHONPATH": str(ROOT),
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", TRAVELLED, str(place), str(clip)],
        env={**os.environ, **alone},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        intensities(clip, checkpoint)
    ] * 2


class NotInstalled:
    """Finds nothing of the package, for itself and for whoever would be asked next."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == "mma_mrnnet":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_where_the_package_is_missing_the_pipeline_says_what_to_install(monkeypatch):
    file = ROOT / "mma_mrnnet" / "prediction" / PIPELINE_FILE
    assert get_imports(file) == []  # else transformers would name a package of the index to install
    assert (
        runpy.run_path(str(file))["FacialExpressionIntensityPipeline"]
        is FacialExpressionIntensityPipeline
    )
    monkeypatch.setitem(
        sys.modules, "mma_mrnnet.prediction.pipeline", None
    )  # there, but broken: not for us to explain
    with pytest.raises(ModuleNotFoundError, match=r"mma_mrnnet\.prediction\.pipeline"):
        runpy.run_path(str(file))
    for name in ("mma_mrnnet.prediction.pipeline", "mma_mrnnet.prediction", "mma_mrnnet"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NotInstalled, *sys.meta_path])
    with pytest.raises(
        ImportError,
        match="the Python package mma-mrnnet, which is not installed here: from a check",
    ):
        runpy.run_path(str(file))


# transformers' own video-classification ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """A clip of 2 s of square "crops" that change every frame, 4 a second."""
    images = [np.roll(astronaut()[:96, 180:276], shift * 9, axis=1) for shift in range(8)]
    return write_video(tmp_path_factory.mktemp("crops") / "crops.mp4", images, 4), images


@pytest.fixture
def classify(checkpoint):
    return pipeline("video-classification", model=str(checkpoint), top_k=7)


def test_video_classification_shows_the_calibrated_intensities(classify, checkpoint, crops):
    array = np.stack(crops[1][:3])  # fewer frames than T
    model, processor = load_checkpoint(checkpoint)
    with torch.no_grad():
        expected = model(**processor([array], return_tensors="pt")).intensities[0].tolist()
    rows = classify(array)
    assert {row["label"]: row["score"] for row in rows} == dict(
        zip(REACTIONS, expected, strict=True)
    )
    assert [row["score"] for row in rows] == sorted(expected, reverse=True)


def test_a_video_of_crops_is_sampled_at_the_models_rate(classify, checkpoint, crops):
    path, _ = crops
    processor = load_checkpoint(checkpoint)[1]
    (frames,), (metadata,) = processor.fetch_videos([str(path)])
    assert list(metadata.frames_indices) == [0, 2, 4, 6]  # 2 of 4 a second
    assert classify(str(path)) == classify(frames)
    assert classify([str(path)] * 2) == [classify(frames)] * 2
    auto = AutoVideoProcessor.from_pretrained(checkpoint)
    assert torch.equal(
        auto(str(path), return_tensors="pt")["pixel_values"],
        processor([frames], return_tensors="pt")["pixel_values"],
    )


def test_whole_frames_that_cannot_be_crops_are_refused(classify, tmp_path):
    wide = write_video(tmp_path / "wide.mp4", [astronaut()[:256]] * 3, 2)
    with pytest.raises(
        ValueError,
        match=r"wide\.mp4: its frames are 512 x 256.*the pipeline facial-expression-inten",
    ):
        classify(str(wide))


def test_the_class_for_video_classification_saves_as_the_other_one_does(
    checkpoint, tiny_processor, tmp_path
):
    model = MMAMRNNetForVideoClassification.from_pretrained(checkpoint)
    model.save_pretrained(tmp_path / "saved")
    written = json.loads((tmp_path / "saved" / "config.json").read_text())["auto_map"]
    assert written == json.loads((checkpoint / "config.json").read_text())["auto_map"]
    affect, labels = torch.rand(2, 4, 26), torch.rand(2, 7)
    given = {"affect": affect, "labels": labels}
    plain = MMAMRNNetForIntensity.from_pretrained(tmp_path / "saved").eval()
    ours, theirs = model.eval()(**given), plain(**given)
    assert torch.equal(ours.intensities, theirs.intensities)
    assert torch.equal(ours.logits, theirs.intensities)
    assert torch.equal(ours.loss, theirs.loss)
    assert torch.equal(model(affect=affect, return_dict=False)[1], ours.intensities)
