"""What `mma-mrnnet crop` promises: the same crops as prediction's, in the mirrored tree, whatever stops the work."""

import csv
import errno
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut
from transformers.utils import logging as transformers_logging

from mma_mrnnet import cli, predict_video
from mma_mrnnet.corpora.clip_folder import load_clip_folder
from mma_mrnnet.crops import folder as crop_corpus_module
from mma_mrnnet.crops.folder import crop_corpus
from mma_mrnnet.crops.store import (
    INDEX,
    CropError,
    CropSettings,
    read_current_index,
    read_index,
    store_crops,
)
from mma_mrnnet.crops.workers import Outcome, crop_clip
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.faces.tracks import crop_faces
from mma_mrnnet.features.clip_cache import read_splits
from mma_mrnnet.features.clip_rows import AffectCache
from mma_mrnnet.features.records import ClipFile
from mma_mrnnet.files import MARK, locked, replaced_folder
from mma_mrnnet.training.arguments import parse_arguments
from mma_mrnnet.training.clip_corpora import read_corpus
from mma_mrnnet.video.reading import VideoError, read_frames
from mma_mrnnet.video.writing import write_video

FACE = cv2.resize(astronaut()[:256, 96:352], (160, 160), interpolation=cv2.INTER_AREA)
GREY = np.full_like(FACE, 128)
AT_2 = CropSettings()
LOSSLESS = CropSettings(image_format="png")
NATIVE = CropSettings(fps=None)


@pytest.fixture(autouse=True)
def settings_kept():
    """What `main` sets for its process stays inside each test."""
    logger = logging.getLogger("mma_mrnnet")
    level, verbosity = logger.level, transformers_logging.get_verbosity()
    yield
    logger.setLevel(level)
    transformers_logging.set_verbosity(verbosity)


def face_clip(path, frames="FFFF", fps=4.0):
    """A clip: F the astronaut, a little darker in every frame, G grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        (FACE * (1 - 0.3 * number / len(frames))).astype(np.uint8) if letter == "F" else GREY
        for number, letter in enumerate(frames)
    ]
    return write_video(path, images, fps)


def write_csv(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)


def read_csv(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def contents(folder):
    """Every file below a folder, hidden ones too, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def crops_in(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != INDEX)


def until(condition, seconds=120):
    """Waits for a condition; fails where it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def half_made(out):
    """The tenth crop of the first track of `b`, while nobody knows yet whose crops stay."""
    return list(out.glob(f"{MARK}*/0/00010.jpg"))


@pytest.fixture
def store(tmp_path):
    """Stores one clip in this process: the folder and its index."""

    def call(video, settings=AT_2, place="store"):
        return tmp_path / place, store_crops(video, tmp_path / place, settings, FaceDetector())

    return call


# ---- one clip


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": Infinity}', "[]", "9" * 5000])
def test_a_damaged_index_of_crops_is_named(tmp_path, text):
    (tmp_path / "crops.json").write_text(text)
    with pytest.raises(CropError, match=r"crops\.json: not an index of crops"):
        read_index(tmp_path)


def test_a_crop_is_named_by_the_number_of_its_frame_and_a_frame_without_a_face_has_none(
    tmp_path, store
):
    # 4 frames a second at 2: frames 1, 3, 5, 7; the fifth is grey.
    folder, index = store(face_clip(tmp_path / "clip.mp4", "FFFFGGFF"))
    assert crops_in(folder) == ["00001.jpg", "00003.jpg", "00007.jpg"]
    assert index.frames == [(1, 0.0, 1), (3, 0.5, 1), (5, 1.0, 0), (7, 1.5, 1)]
    assert (index.faces, index.duration_s, index.warning) == (3, 2.0, None)
    assert read_index(folder) == index


def test_native_crops_are_numbered_as_the_frames_decode_whatever_their_times(tmp_path, store):
    # Variable frame rate: 6 frames at 0, 40, 500, 510, 1000 and 2000 ms are images 1 to 6; at 2 a second 1, 3, 5, 6.
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *FACE.shape[:2], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for stamp in (0, 40, 500, 510, 1000, 2000):
            frame = av.VideoFrame.from_ndarray(FACE, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    folder, index = store(path, NATIVE)
    assert crops_in(folder) == [f"0000{number}.jpg" for number in range(1, 7)]
    assert [time_s for _, time_s, _ in index.frames] == pytest.approx(
        [0, 0.04, 0.5, 0.51, 1, 2], abs=0.002
    )
    assert [file.name for file in index.files_at(folder, 2.0)] == [
        "00001.jpg",
        "00003.jpg",
        "00005.jpg",
        "00006.jpg",
    ]
    assert crops_in(store(path, AT_2, "two")[0]) == [
        "00001.jpg",
        "00003.jpg",
        "00005.jpg",
        "00006.jpg",
    ]


def test_png_crops_are_predictions_crops_to_the_bit_and_jpg_ones_nearly(tmp_path, store):
    video = face_clip(tmp_path / "clip.mp4")
    wanted = [frame.crops[0] for frame in crop_faces(read_frames(video, 2.0), 96)]
    for image_format, most in (("png", 0), ("jpg", 2)):
        folder, _ = store(video, CropSettings(2.0, 96, image_format), image_format)
        found = [np.asarray(Image.open(folder / name)) for name in crops_in(folder)]
        assert len(found) == len(wanted) == 2
        for crop, other in zip(found, wanted, strict=True):
            assert crop.shape == (96, 96, 3)
            assert np.abs(crop.astype(int) - other).mean() <= most


def test_a_clip_without_a_face_has_an_index_and_no_crops(tmp_path, store):
    folder, index = store(face_clip(tmp_path / "clip.mp4", "GGGG"))
    assert (crops_in(folder), index.faces, len(index.frames)) == ([], 0, 2)


def test_a_folder_of_another_origin_is_left_alone(tmp_path, store):
    video = face_clip(tmp_path / "clip.mp4")
    for name, content in (("00001.jpg", b"mine"), (INDEX, b"{}"), (INDEX, b"no json")):
        (tmp_path / "store").mkdir(exist_ok=True)
        (tmp_path / "store" / name).write_bytes(content)
        before = contents(tmp_path / "store")
        with pytest.raises(CropError, match=str(tmp_path / "store")):
            store(video)
        assert contents(tmp_path / "store") == before
    assert read_current_index(video, tmp_path / "store", AT_2) is None


def test_crops_are_current_only_for_the_same_video_and_settings_and_when_whole(tmp_path, store):
    video = face_clip(tmp_path / "clip.mp4")
    folder, index = store(video)
    assert read_current_index(video, folder, AT_2) == index
    for settings in (CropSettings(4.0), CropSettings(size=96), LOSSLESS, NATIVE):
        assert read_current_index(video, folder, settings) is None
    (folder / "00003.jpg").rename(tmp_path / "kept")
    assert read_current_index(video, folder, AT_2) is None
    (tmp_path / "kept").rename(folder / "00003.jpg")
    os.utime(video, ns=(0, 0))
    assert read_current_index(video, folder, AT_2) is None


def test_a_failure_leaves_the_older_crops_and_nothing_beside_them(tmp_path, store, monkeypatch):
    video = face_clip(tmp_path / "clip.mp4")
    folder, _ = store(video)
    before = contents(tmp_path)

    def failing(number):
        def write_bytes(path, content):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "write_bytes", write_bytes)

    failing(errno.ENOSPC)
    outcome = crop_clip(video, folder, LOSSLESS, FaceDetector())
    assert outcome.disk_full
    assert "No space left" in outcome.error
    assert contents(tmp_path) == before
    failing(errno.EACCES)
    assert not crop_clip(video, folder, LOSSLESS, FaceDetector()).disk_full
    monkeypatch.undo()
    video.write_bytes(b"\0" * 100)
    outcome = crop_clip(video, folder, AT_2, FaceDetector())
    assert outcome.error.startswith("is no video that can be read")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "store"]


# ---- affect


def affect_at(fps, paths, cache, extractor, processor):
    clips = [ClipFile(path.name, path, "", "train", {"joy": 0.5}) for path in paths]
    return arrays(read_splits(clips, AffectCache(cache, extractor, processor, fps))["train"])


def arrays(split):
    return list(split.rows)


@pytest.mark.parametrize("frames", ["FFFFFFFF", "FFGGGFFF"])
def test_affect_of_png_crops_is_the_videos_and_of_jpg_crops_nearly(
    tmp_path, store, tiny_mma, tiny_processor, frames
):
    video = face_clip(tmp_path / "clip.mp4", frames)
    settings = {
        "png": CropSettings(2.0, 32, "png"),
        "native": CropSettings(None, 32, "png"),
        "jpg": CropSettings(2.0, 32, "jpg"),
    }
    folders = [store(video, chosen, name)[0] for name, chosen in settings.items()]
    cache = tmp_path / "cache"
    of_video, of_png, of_native, of_jpg = affect_at(
        2.0, [video, *folders], cache, tiny_mma, tiny_processor
    )
    assert len(of_video) == frames[::2].count("F")
    # Bit for bit: all of them go through the extractor in one chunk of equal crops.
    assert (of_video == of_png).all()
    assert (of_video == of_native).all()
    assert (of_video != of_jpg).any()
    np.testing.assert_allclose(of_jpg, of_video, atol=0.02)


def test_who_is_followed_at_2_a_second_does_not_depend_on_the_frames_in_between(tmp_path, store):
    # Sides of 80, 128 and then 200 pixels: from frame to frame one person, over two frames (a factor of 2.5) another.
    images = []
    for side in (80, 128, 200, 200, 200, 200):
        image = np.full((240, 240, 3), 128, np.uint8)
        start = 120 - side // 2
        image[start : start + side, start : start + side] = cv2.resize(
            FACE, (side, side), interpolation=cv2.INTER_AREA
        )
        images.append(image)
    video = write_video(tmp_path / "clip.mp4", images, 4)
    native, index = store(video, CropSettings(None, image_format="png"), "native")
    plain, _ = store(video, LOSSLESS, "plain")
    thinned = index.files_at(native, 2.0)
    assert crops_in(plain) == ["00001.png"]
    assert "00002.png" in crops_in(native)
    assert [file.name for file in thinned] == crops_in(plain)
    assert [file.read_bytes() for file in thinned] == [
        (plain / name).read_bytes() for name in crops_in(plain)
    ]


def test_crops_of_another_rate_or_with_a_hole_are_refused(
    tmp_path, store, tiny_mma, tiny_processor
):
    video = face_clip(tmp_path / "clip.mp4")
    folder, index = store(video)
    with pytest.raises(CropError, match="were made 2 a second, for --sampling_fps 2; got 3"):
        index.check_rate(folder, 3.0)
    with pytest.raises(CropError, match="for every frame, for --sampling_fps 2; got 4"):
        store(video, NATIVE, "native")[1].check_rate(folder, 4.0)
    (folder / "00003.jpg").unlink()
    clips = [ClipFile(path.name, path, "", "train", {"joy": 0.5}) for path in (folder, video)]
    done = read_splits(clips, AffectCache(tmp_path / "cache", tiny_mma, tiny_processor, 2.0))[
        "train"
    ]
    assert (done.unreadable, [clip.clip_id for clip in done.clips]) == (["store"], ["clip.mp4"])
    with pytest.raises(CropError, match=r"1 of its crops are missing, first 00003\.jpg"):
        index.files_at(folder, 2.0)


def test_damaged_frames_are_left_out_of_crops_training_and_predictions_alike(
    shared_faulty, tmp_path, store, tiny_model, tiny_processor
):
    video = shared_faulty / "packet_loss.ts"
    folder, index = store(video, CropSettings(2.0, 32, "png"))
    times = [time_s for _, time_s, has_face in index.frames if has_face]
    assert times == pytest.approx([2.0, 4.0], abs=0.001)  # where key frames came through whole
    assert len(index.frames) == 12
    assert "frames are damaged" in index.warning
    rows = affect_at(2.0, [video, folder], tmp_path / "cache", tiny_model.mma, tiny_processor)
    assert [len(of_clip) for of_clip in rows] == [2, 2]
    assert (rows[0] == rows[1]).all()
    predicted = predict_video(video, tiny_model, tiny_processor)
    assert (predicted.frames_with_face, predicted.frames_sampled) == (2, 12)
    assert index.warning in predicted.warning


# ---- a corpus


@pytest.fixture
def corpus(tmp_path):
    """Two splits with a clip each, one deeper, one without a face."""
    folder = tmp_path / "clips"
    face_clip(folder / "train" / "a.mp4", "FFFFGG")
    face_clip(folder / "train" / "deep" / "b.MOV", "FFFF")
    face_clip(folder / "validation" / "c.v2.mp4", "FF")
    face_clip(folder / "validation" / "grey.mp4", "GG")
    header = ["file_name", "subject", "joy"]
    write_csv(
        folder / "train" / "metadata.csv",
        header,
        ["a.mp4", "ann", "0.5"],
        ["./deep/b.MOV", "bob", ""],
    )
    write_csv(
        folder / "validation" / "metadata.csv",
        header,
        ["c.v2.mp4", "eve", "1"],
        ["grey.mp4", "dan", "0"],
    )
    (folder / "notes.txt").write_text("not copied")
    (folder / "train" / "._a.mp4").write_bytes(b"macOS")
    return folder


@pytest.fixture
def run(capsys):
    """Runs the command: exit code and stderr's lines; nothing goes to stdout."""

    def command(*words):
        capsys.readouterr()
        code = cli.main(["crop", *map(str, words)])
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        return code, err.splitlines()

    return command


@pytest.mark.slow
def test_a_corpus_becomes_the_same_tree_of_crops_with_its_tables(run, corpus, tmp_path):
    out = tmp_path / "out"
    code, err = run(corpus, out, "--workers", 2)
    assert code == 0
    summary = "4 clips done, 0 skipped, 0 failed, 1 without a face; a face in 5 of 7 frames; "
    assert err[-1].startswith(f"{out}: {summary}")
    assert set(err[:-1]) == {
        f"wrote {out / split / 'metadata.csv'}" for split in ("train", "validation")
    }
    assert list(contents(out)) == [
        "train/a/00001.jpg",
        "train/a/00003.jpg",
        "train/a/crops.json",
        "train/deep/b/00001.jpg",
        "train/deep/b/00003.jpg",
        "train/deep/b/crops.json",
        "train/metadata.csv",
        "validation/c.v2/00001.jpg",
        "validation/c.v2/crops.json",
        "validation/grey/crops.json",
        "validation/metadata.csv",
    ]
    assert read_csv(out / "train" / "metadata.csv") == [
        ["file_name", "subject", "joy"],
        ["a", "ann", "0.5"],
        ["deep/b", "bob", ""],
    ]


def test_training_reads_the_crops_as_it_reads_the_clips(corpus, tmp_path, tiny_mma, tiny_processor):
    crop_corpus(corpus, tmp_path / "out", CropSettings(2.0, 32, "png"), 1)
    of_crops, of_clips = load_clip_folder(tmp_path / "out"), load_clip_folder(corpus)
    assert [clip.clip_id for clip in of_crops] == [
        "train/a",
        "train/deep/b",
        "validation/c.v2",
        "validation/grey",
    ]
    assert [(clip.subject, clip.split) for clip in of_crops] == [
        (clip.subject, clip.split) for clip in of_clips
    ]
    cache = AffectCache(tmp_path / "cache", tiny_mma, tiny_processor, 2.0)
    found, wanted = read_splits(of_crops, cache), read_splits(of_clips, cache)
    assert found["validation"].without_rows == ["validation/grey"]
    for split in ("train", "validation"):
        for affect, other in zip(arrays(found[split]), arrays(wanted[split]), strict=True):
            np.testing.assert_allclose(affect, other, atol=1e-6)
    words = [
        "--stage",
        "mrnn",
        "--mma",
        "m",
        "--output",
        "o",
        "--data",
        f"clips:{tmp_path / 'out'}",
    ]
    assert len(read_corpus(parse_arguments(words)).files) == 4
    with pytest.raises(ValueError, match="made 2 a second, for --sampling_fps 2; got 4"):
        read_corpus(parse_arguments([*words, "--sampling_fps", "4"]))
    (tmp_path / "out" / "train" / "a" / INDEX).unlink()
    with pytest.raises(ValueError, match=r"metadata\.csv:2: 'a' is a folder without crops\.json"):
        load_clip_folder(tmp_path / "out")


def test_one_worker_and_two_write_the_same_bytes(corpus, tmp_path):
    for workers in (1, 2):
        crop_corpus(corpus, tmp_path / str(workers), NATIVE, workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_second_run_makes_what_is_new_changed_or_damaged_and_nothing_else(run, corpus, tmp_path):
    out = tmp_path / "out"
    run(corpus, out)
    before = contents(out)
    kept = (out / "train" / "deep" / "b" / "00001.jpg").stat().st_mtime_ns
    assert run(corpus, out)[1][-1].startswith(f"{out}: 0 clips done, 4 skipped, 0 failed")
    (out / "train" / "a" / "00001.jpg").unlink()  # damaged
    with replaced_folder(out / "validation" / "grey") as staging:  # of a run that was killed ...
        left = staging.with_name(staging.name.replace(f"-{os.getpid()}-", "-999999999-"))
    left.mkdir()
    (left / "00001.jpg").write_bytes(b"half")
    (out / "validation" / ".grey.part").mkdir()  # a user's own, whatever its name
    assert not (out / "validation" / "grey" / INDEX).exists()  # ... before the clip was there
    code, err = run(corpus, out)
    assert (code, err[-1].split(": ")[1].split(";")[0]) == (
        0,
        "2 clips done, 2 skipped, 0 failed, 1 without a face",
    )
    assert contents(out) == before
    assert (out / "validation" / ".grey.part").is_dir()
    face_clip(corpus / "validation" / "c.v2.mp4", "FFFFF")
    face_clip(corpus / "new.mp4", "FF")
    assert "2 clips done, 3 skipped" in run(corpus, out)[1][-1]
    assert crops_in(out / "validation" / "c.v2") == ["00001.jpg", "00003.jpg", "00005.jpg"]
    assert (out / "train" / "deep" / "b" / "00001.jpg").stat().st_mtime_ns == kept
    assert "5 clips done, 0 skipped" in run(corpus, out, "--format", "png")[1][-1]
    assert crops_in(out / "train" / "a") == ["00001.png", "00003.png"]


def test_what_cannot_be_read_is_told_and_the_others_are_done(run, corpus, tmp_path):
    out = tmp_path / "out"
    (corpus / "train" / "a.mp4").write_bytes(b"\0\1\2" * 100)
    (out / "validation" / "grey").mkdir(parents=True)
    (out / "validation" / "grey" / "00001.jpg").write_bytes(b"mine")
    code, err = run(corpus, out)
    assert code == 1
    assert err[0].startswith(
        f"mma-mrnnet: {corpus / 'train' / 'a.mp4'}: is no video that can be read"
    )
    assert "not made by this command" in err[1]
    assert f"mma-mrnnet: {corpus / 'train' / 'metadata.csv'}:2: 'a.mp4' has no crops" in err
    assert err[-1].startswith(f"{out}: 2 clips done, 0 skipped, 2 failed, 0 without a face")
    assert (out / "validation" / "grey" / "00001.jpg").read_bytes() == b"mine"
    assert [row[0] for row in read_csv(out / "train" / "metadata.csv")] == ["file_name", "deep/b"]
    assert [row[0] for row in read_csv(out / "validation" / "metadata.csv")] == [
        "file_name",
        "c.v2",
    ]


def test_tables_of_another_kind_are_told_and_never_overwritten(run, corpus, tmp_path):
    out = tmp_path / "out"
    write_csv(out / "train" / "metadata.csv", ["file_name", "joy"], ["mine.mp4", "1"])
    write_csv(corpus / "validation" / "metadata.csv", ["clip", "joy"], ["c.v2.mp4", "1"])
    write_csv(
        corpus / "metadata.csv",
        ["file_name", "joy"],
        ["train/a.mp4", "1"],
        ["gone.mp4", "1"],
        ["train/a.mp4"],
    )
    code, err = run(corpus, out)
    assert code == 1
    assert (
        f"mma-mrnnet: {corpus / 'validation' / 'metadata.csv'}: has no column file_name; found ['clip', 'joy']"
        in err
    )
    assert any("is here already and names videos: left alone" in line for line in err)
    assert f"mma-mrnnet: {corpus / 'metadata.csv'}:3: 'gone.mp4' has no crops" in err
    assert f"mma-mrnnet: {corpus / 'metadata.csv'}:4: not a whole line" in err
    assert read_csv(out / "train" / "metadata.csv")[1] == ["mine.mp4", "1"]
    assert read_csv(out / "metadata.csv") == [["file_name", "joy"], ["train/a", "1"]]


def test_crops_may_lie_inside_the_folder_of_the_videos(run, corpus):
    for done in (4, 0):
        code, err = run(corpus, corpus / "crops")
        assert code == 0
        assert err[-1].startswith(f"{corpus / 'crops'}: {done} clips done, {4 - done} skipped")
    assert read_csv(corpus / "train" / "metadata.csv")[1][0] == "a.mp4"
    assert not (corpus / "crops" / "crops").exists()


@pytest.mark.parametrize(
    ("make", "words", "what"),
    [
        ([], ["clips", "out"], "clips: no such folder"),
        (["clips/notes.txt"], ["clips", "out"], "clips: no video here"),
        (["clips/a.mp4"], ["clips", "clips"], "crops need a folder of their own"),
        (["clips/a.mp4"], ["clips", "."], "crops need a folder of their own"),
        (["clips/a.mp4", "out"], ["clips", "out"], "out: is a file"),
        (
            ["clips/a.mp4", "clips/a.avi"],
            ["clips", "out"],
            "clips/a.mp4 and clips/a.avi would both become out/a",
        ),
        (
            ["clips/a.mp4", "clips/a/b.mp4"],
            ["clips", "out"],
            "clips/a/b.mp4 would be put inside the crops of clips/a",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_before_any_work(
    run, tmp_path, monkeypatch, make, words, what
):
    monkeypatch.chdir(tmp_path)
    for name in make:
        Path(name).parent.mkdir(exist_ok=True, parents=True)
        Path(name).touch()
    before = contents(tmp_path)
    code, err = run(*words)
    assert (code, len(err)) == (1, 1)
    assert what in err[0]
    assert contents(tmp_path) == before


def test_two_runs_do_not_work_in_one_folder(corpus, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        locked(tmp_path / "out", ""),
        pytest.raises(ValueError, match="another run is making crops here"),
    ):
        crop_corpus(corpus, tmp_path / "out", AT_2, 1)


# ---- what stops the work


@pytest.fixture
def long_corpus(tmp_path):
    """`a` is quick, `b` takes a second or more at its native rate, `c` and `d` are quick."""
    folder = tmp_path / "long"
    for name in "acd":
        face_clip(folder / f"{name}.mp4", "FF")
    face_clip(folder / "b.mp4", "F" * 300, 25.0)
    return folder


def test_a_worker_that_dies_costs_its_clip_alone(long_corpus, tmp_path):
    out = tmp_path / "out"

    def kill():
        until(lambda: half_made(out))
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    report = crop_corpus(long_corpus, out, NATIVE, 1)
    thread.join()
    assert report.done == 3
    (failed,) = report.failed
    assert failed[0].name == "b.mp4"
    assert failed[1].startswith("the process that read it ended by signal 9")
    assert sorted(path.name for path in out.iterdir()) == ["a", "c", "d"]
    assert not multiprocessing.active_children()


@pytest.fixture
def interruptible():
    """Ctrl-C as in a terminal: who starts the tests in the background has it ignored in all they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interruption_keeps_finished_clips_and_leaves_no_half_ones(run, long_corpus, tmp_path):
    out = tmp_path / "out"

    def interrupt():
        until(lambda: half_made(out))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code, err = run(long_corpus, out, "--fps", "native", "--workers", 1)
    thread.join()
    assert (code, err) == (
        130,
        ["mma-mrnnet: interrupted; finished clips stay, and the same command goes on there"],
    )
    # On a busy machine the second clip may be done before the signal arrives.
    assert sorted(path.name for path in out.iterdir()) in (["a"], ["a", "b"])
    assert not multiprocessing.active_children()


def test_a_full_disk_ends_the_run_with_one_line(run, corpus, tmp_path, monkeypatch):
    def full(tasks, settings, workers):
        yield tasks[0], Outcome(error="cannot be written", disk_full=True)

    monkeypatch.setattr(crop_corpus_module, "crop_clips", full)
    code, err = run(corpus, tmp_path / "out")
    assert code == 1
    assert err == [
        f"mma-mrnnet: {tmp_path / 'out'}: the disk is full; finished clips stay, and the same command goes on there"
    ]


@pytest.mark.slow
def test_after_a_kill_the_same_command_ends_with_the_bytes_of_a_run_that_was_not_killed(
    long_corpus, tmp_path
):
    write_csv(
        long_corpus / "metadata.csv",
        ["file_name", "split"],
        *([f"{name}.mp4", "train"] for name in "abcd"),
    )
    out, whole = tmp_path / "out", tmp_path / "whole"
    words = [
        sys.executable,
        "-m",
        "mma_mrnnet.cli",
        "crop",
        long_corpus,
        out,
        "--fps",
        "native",
        "--workers",
        "1",
    ]
    process = subprocess.Popen(list(map(str, words)), stderr=subprocess.DEVNULL)
    until(lambda: half_made(out))
    left = len(list(half_made(out)[0].parent.iterdir()))
    process.kill()
    process.wait()
    assert (out / "a" / INDEX).is_file()
    assert not (out / "b").exists()
    report = crop_corpus(long_corpus, out, NATIVE, 1)
    assert (report.done, report.skipped) == (3, 1)
    crop_corpus(long_corpus, whole, NATIVE, 1)
    assert contents(out) == contents(whole)
    assert left < len(list((whole / "b").iterdir()))


def test_a_video_error_survives_its_way_out_of_a_worker(tmp_path):
    with pytest.raises(VideoError):
        store_crops(tmp_path / "none.mp4", tmp_path / "out", AT_2, FaceDetector())
    assert list(tmp_path.iterdir()) == []
