"""Stage 2 on real clips: both corpus layouts, the affect cache, and the whole path from a user's clips to a model."""

import csv
import json
import logging
import math
import os
import pickle
import re
import shutil
import zlib
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file
from skimage.data import astronaut

from mma_mrnnet import MMAMRNNetForIntensity, predict_video
from mma_mrnnet.corpora.clip_folder import LabelChoice, load_clip_folder
from mma_mrnnet.corpora.hume_reaction import load_hume_reaction
from mma_mrnnet.faces.affect import extract_affect
from mma_mrnnet.features import clip_cache
from mma_mrnnet.features.clip_cache import StoredRows, read_splits
from mma_mrnnet.features.clip_rows import AffectCache
from mma_mrnnet.features.records import ClipFile, clip_features
from mma_mrnnet.hub.checkpoints import load_checkpoint
from mma_mrnnet.hub.export import export_checkpoint
from mma_mrnnet.model.labels import REACTIONS, affect_names
from mma_mrnnet.train import main
from mma_mrnnet.training.arguments import parse_arguments
from mma_mrnnet.training.clip_corpora import ClipSplit, read_corpus
from mma_mrnnet.training.datasets import ClipDataset
from mma_mrnnet.training.reports import mean_label, score_clips, score_split
from mma_mrnnet.video.writing import write_video

FACE = np.ascontiguousarray(astronaut()[:240, 100:340])
GREY = np.full_like(FACE, 128)


def write_csv(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def empty_clip(path):
    """A file in a clip's place, for what reads names only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def face_clip(path, frames="FF", light=1.0):
    """A clip at 2 frames a second: F the astronaut, lit by `light`, G grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lit = (FACE * light).astype(np.uint8)
    return write_video(path, [lit if letter == "F" else GREY for letter in frames], fps=2.0)


def record(path, split="train", **labels):
    return ClipFile(path.stem, path, "", split, labels or {"joy": 0.5})


# A user's own clips ------------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """Three splits of two clips each, two targets, one label missing."""
    folder = tmp_path / "own"
    for split in ("train", "validation", "test"):
        write_csv(
            folder / split / "metadata.csv",
            ["file_name", "subject", "joy", "boredom"],
            ["a.mp4", f"{split}-1", "0.25", "1"],
            ["deep/b.mp4", f"{split}-2", "0", ""],
        )
        empty_clip(folder / split / "a.mp4")
        empty_clip(folder / split / "deep" / "b.mp4")
    return folder


def test_a_folder_of_clips_is_read_with_its_targets_and_an_empty_cell_is_no_label(own):
    clips = load_clip_folder(own)
    assert [clip.clip_id for clip in clips[:2]] == ["train/a.mp4", "train/deep/b.mp4"]
    assert [clip.split for clip in clips] == ["train"] * 2 + ["validation"] * 2 + ["test"] * 2
    assert clips[0].labels == {"joy": 0.25, "boredom": 1.0}
    assert clips[1].labels["joy"] == 0.0
    assert math.isnan(clips[1].labels["boredom"])
    assert clips[1].path == own / "train" / "deep" / "b.mp4"
    assert clips[3].subject == "validation-2"


def test_one_metadata_file_with_a_split_column_is_the_other_layout_and_test_may_be_absent(tmp_path):
    write_csv(
        tmp_path / "metadata.csv",
        ["split", "file_name", "joy"],
        ["validation", "one.mp4", "0.5"],
        ["train", "two.mp4", "1"],
    )
    empty_clip(tmp_path / "one.mp4")
    empty_clip(tmp_path / "two.mp4")
    clips = load_clip_folder(tmp_path)
    assert [(clip.clip_id, clip.split, clip.subject) for clip in clips] == [
        ("one.mp4", "validation", ""),
        ("two.mp4", "train", ""),
    ]


HEADER = ["file_name", "subject", "joy", "boredom"]


@pytest.mark.parametrize(
    ("rows", "message"),
    {
        "missing clip": (
            [HEADER, ["gone.mp4", "v", "0", "1"]],
            ":2: the clip 'gone.mp4' is not in",
        ),
        "above the folder": (
            [HEADER, ["../../a.mp4", "v", "0", "1"]],
            ":2: '../../a.mp4' is not in",
        ),
        "no file's name": ([HEADER, ["x" * 300, "v", "0", "1"]], ":2: the clip 'xxxxx"),
        "elsewhere": ([HEADER, ["/etc/hostname", "v", "0", "1"]], ":2: '/etc/hostname' is not in"),
        "listed twice": (
            [HEADER, ["a.mp4", "v", "0", "1"], ["a.mp4", "v", "0", "1"]],
            ":3: a.mp4 is listed twice",
        ),
        "value too large": (
            [HEADER, ["a.mp4", "v", "0", "1.5"]],
            ":2: boredom must be a number in [0, 1], or empty",
        ),
        "no number": (
            [HEADER, ["a.mp4", "v", "some", "1"]],
            ":2: joy must be a number in [0, 1], or empty; got",
        ),
        "other targets": ([HEADER[:3], ["a.mp4", "v", "0"]], ":1: the targets are ['joy']; in "),
        "person in two splits": (
            [HEADER, ["a.mp4", "train-2", "0", "1"]],
            ":2: subject 'train-2' is in validation and in train",
        ),
        "no targets": (
            [HEADER[:2], ["a.mp4", "v"]],
            ":1: no target column beside ['file_name', 'subject']",
        ),
        "no file_name": (
            [["name", "joy"], ["a.mp4", "0"]],
            ":1: columns ['file_name'] are missing",
        ),
        "name taken": (
            [["file_name", "error"], ["a.mp4", "0"]],
            "--ignore error leaves them out",
        ),
        "one name twice": (
            [["file_name", "joy", "joy"], ["a.mp4", "0", "0"]],
            ":1: every column needs a name",
        ),
        "a cell too few": ([HEADER, ["a.mp4", "v", "0"]], ":2: expected 4 values; got 3"),
        "another split's row": (
            [[*HEADER, "split"], ["a.mp4", "v", "0", "1", "test"]],
            ":2: split is 'test' in",
        ),
        "nothing in a split": ([HEADER], "no clip in validation"),
        "never labelled": (
            [HEADER, ["a.mp4", "v", "0", ""]],
            "no clip of validation is labelled with 'boredom'",
        ),
    }.values(),
)
def test_a_wrong_line_is_named_with_its_file(own, rows, message):
    path = write_csv(own / "validation" / "metadata.csv", *rows)
    with pytest.raises(ValueError, match="validation") as caught:
        load_clip_folder(own)
    assert message in str(caught.value)
    assert str(path if message.startswith(":") else own) in str(caught.value)


@pytest.mark.parametrize("cell", ["NA", "#N/A", "-nan(ind)", "1.#QNAN", "null", "n/a", " "])
def test_every_way_to_write_no_number_is_no_label(own, cell):
    row = ["a.mp4", "v", "0.5", cell]
    path = write_csv(own / "train" / "metadata.csv", HEADER, row)
    with path.open("a", encoding="utf-8") as table:
        table.write("deep/b.mp4,w,0.25,1\n")
    clips = load_clip_folder(own)
    assert math.isnan(clips[0].labels["boredom"])
    assert clips[1].labels == {"joy": 0.25, "boredom": 1.0}


def test_metadata_of_json_lines_and_parquet_is_read_as_videofolder_has_it(own):
    lines = [
        {"file_name": "a.mp4", "joy": 0.25, "boredom": 1, "subject": "train-1"},
        {"file_name": "deep/b.mp4", "subject": "train-2", "joy": 0, "boredom": None},
    ]
    expected = load_clip_folder(own)
    (own / "train" / "metadata.csv").unlink()
    text = "\n".join(map(json.dumps, lines)) + "\n"
    (own / "train" / "metadata.jsonl").write_text(text)
    pd.read_csv(own / "test" / "metadata.csv").to_parquet(own / "test" / "metadata.parquet")
    (own / "test" / "metadata.csv").unlink()
    found = load_clip_folder(own)
    assert [(clip.clip_id, clip.subject) for clip in found] == [
        (clip.clip_id, clip.subject) for clip in expected
    ]
    for clip, other in zip(found, expected, strict=True):
        assert list(clip.labels) == sorted(other.labels, reverse=True)
        assert clip.labels == pytest.approx(other.labels, nan_ok=True)
    for damaged in ("{no JSON\n", "[" * 100_000):
        (own / "train" / "metadata.jsonl").write_text(text + damaged)
        with pytest.raises(ValueError, match=r"metadata\.jsonl:3: not a line of JSON"):
            load_clip_folder(own)


def test_targets_and_ignore_choose_columns_and_a_scale_is_declared(own):
    header = ["file_name", "joy", "joy_note", "rated_calm", "age"]
    for split in ("train", "validation", "test"):
        rows = [["a.mp4", 1, "loud", 4, 30], ["deep/b.mp4", 7, "", 2.5, 40]]
        write_csv(own / split / "metadata.csv", header, *rows)
    with pytest.raises(
        ValueError, match=r"joy must be a number in \[0, 1\].* got '7' .*label_range"
    ):
        load_clip_folder(own, LabelChoice(["joy"]))
    with pytest.raises(ValueError, match=r"got 'loud' \(--ignore joy_note leaves the column out\)"):
        load_clip_folder(own, LabelChoice(scale=(1, 7), ignore=["age"]))
    with pytest.raises(ValueError, match=r"metadata\.csv:1: no column fear; found joy, joy_note"):
        load_clip_folder(own, LabelChoice(["joy", "fear"]))
    chosen = load_clip_folder(own, LabelChoice(["joy*", "rated*"], ["*_note"], (1, 7)))
    assert chosen[0].labels == {"joy": 0.0, "rated_calm": 0.5}
    assert chosen[1].labels == {"joy": 1.0, "rated_calm": 0.25}
    assert [
        *load_clip_folder(own, LabelChoice(ignore=["age", "*_note"], scale=(0, 10)))[0].labels
    ] == [
        "joy",
        "rated_calm",
    ]


def test_a_folder_without_metadata_says_what_was_looked_for(tmp_path):
    with pytest.raises(ValueError, match=r"neither metadata\.csv nor train/metadata\.csv is here"):
        load_clip_folder(tmp_path)


# Hume-Reaction -----------------------------------------------------------------------------------------------------

LABELS = {
    "00000": [0.5, 1.0, 0.0, 0.25, 0.0, 0.0, 0.75],
    "00001": [0.1, 0.2, 1.0, 0.0, 0.0, 0.3, 0.4],
    "00007": [1.0, 0.9, 0.0, 0.0, 0.2, 0.0, 0.5],
    "00009": [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.5],
}


def write_crop(path, side=40, light=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    face = Image.fromarray((FACE * light).astype(np.uint8))
    face.resize((side, side)).save(path)


@pytest.fixture
def muse(tmp_path):
    """MuSe 2022's layout; rows of the two tables in different orders, ids missing here and there, stray files."""
    root = tmp_path / "c2_muse_reaction"
    write_csv(
        root / "labels.csv",
        ["File_ID", *REACTIONS],
        ["[00007]", *LABELS["00007"]],
        ["[00000]", *LABELS["00000"]],
        ["[00001]", *LABELS["00001"]],
        ["[00009]", *LABELS["00009"]],  # no faces
        ["[00003]", *([""] * 7)],
        ["[00011]", *LABELS["00009"]],  # no partition
    )
    write_csv(
        root / "partition.csv",
        ["Id", "Country", "Proposal"],
        ["[00000]", "x", "train"],
        ["[00001]", "x", "devel"],
        ["[00003]", "x", "test"],
        ["[00007]", "x", "train"],
        ["[00009]", "x", "train"],
        ["[00012]", "x", "train"],  # no labels
    )
    for clip_id in ("00000", "00001", "00003", "00007", "00012"):
        for stamp in (0, 500, 1000):
            write_crop(root / "feats" / "Faces" / clip_id / f"{stamp}.jpg")
    (root / "feats" / "Faces" / "all_features.pickle").write_bytes(b"stray")
    (root / "feats" / "Faces" / "00000" / "all_features.pickle").write_bytes(b"stray")
    (root / "feats" / "Faces" / "00009").mkdir()
    write_csv(
        root / "feats" / "FAUs" / "00000.csv", ["File_ID", "timestamp", "AU01"], ["[00000]", 0, 0.5]
    )
    return root


def test_the_muse_layout_is_joined_by_id_with_labels_as_published(muse, caplog):
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        clips = {clip.clip_id: clip for clip in load_hume_reaction(muse)}
    assert {name: clip.split for name, clip in clips.items()} == {
        "00000": "train",
        "00001": "validation",
        "00003": "test",
        "00007": "train",
    }
    assert list(clips["00000"].labels) == list(REACTIONS)
    assert list(clips["00007"].labels.values()) == LABELS["00007"]
    assert not clips["00003"].is_labelled
    assert clips["00001"].is_labelled
    assert [record.getMessage() for record in caplog.records] == [
        "left out 1 ids with a split but no labels, for example 00012",
        "left out 1 ids with labels but no split, for example 00011",
        "left out 1 ids that are not in feats/Faces/<id>/, for example 00009",
    ]


def test_validation_and_test_ids_without_a_clip_are_kept_and_training_ids_are_not(muse, caplog):
    shutil.rmtree(muse / "feats" / "Faces" / "00001")
    shutil.rmtree(muse / "feats" / "Faces" / "00007")
    write_crop(muse / "feats" / "Faces" / "00013" / "0.jpg")
    with (muse / "partition.csv").open("a", encoding="utf-8") as table:
        table.write("[00013],x,devel\n[00014],x,test\n")
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        clips = load_hume_reaction(muse)
    assert [(clip.clip_id, clip.split, clip.listed_as, len(clip.files)) for clip in clips] == [
        ("00000", "train", "[00000]", 3),
        ("00001", "validation", "[00001]", 0),
        ("00003", "test", "[00003]", 3),
        ("00013", "validation", "[00013]", 1),  # no labels
        ("00014", "test", "[00014]", 0),
    ]
    assert [record.getMessage() for record in caplog.records][-2:] == [
        "left out 2 ids that are not in feats/Faces/<id>/, for example 00007",
        "kept for the mean training label 2 ids that are not in feats/Faces/<id>/, for example 00001",
    ]


def test_a_split_of_which_nothing_is_here_is_left_out(muse):
    shutil.rmtree(muse / "feats" / "Faces" / "00003")
    assert {clip.split for clip in load_hume_reaction(muse)} == {"train", "validation"}


def test_clips_come_from_crops_videos_or_a_set_of_features_as_asked(muse):
    for place in ("train/mp4/00000.mp4", "val/mp4/00001.mp4"):
        empty_clip(muse / place)
    write_csv(
        muse / "feats" / "FAUs" / "00001.csv", ["File_ID", "timestamp", "AU01"], ["[00001]", 0, 0.5]
    )

    def paths(clips_from):
        return [
            clip.path.relative_to(muse).as_posix() for clip in load_hume_reaction(muse, clips_from)
        ]

    crops = [f"feats/Faces/{clip_id}" for clip_id in ("00000", "00001", "00003", "00007")]
    assert paths("auto") == paths("faces") == crops
    assert paths("videos") == ["train/mp4/00000.mp4", "val/mp4/00001.mp4"]
    assert paths("FAUs") == ["feats/FAUs/00000.csv", "feats/FAUs/00001.csv"]
    shutil.rmtree(muse / "feats" / "Faces")
    assert paths("auto") == paths("videos")


def test_a_source_of_clips_that_is_not_there_is_named_with_what_is(muse):
    (muse / "feats" / "VGGFace2").mkdir()
    with pytest.raises(
        ValueError, match=r"feats: no set of features is called 'fau'; there are: FAUs, VGGFace2"
    ):
        load_hume_reaction(muse, "fau")
    with pytest.raises(ValueError, match=r"no clip of 6 ids in feats/VGGFace2/<id>\.csv"):
        load_hume_reaction(muse, "VGGFace2")
    with pytest.raises(ValueError, match=r"no clip of 6 ids in train\|val\|test/mp4/<id>\.mp4"):
        load_hume_reaction(muse, "videos")
    shutil.rmtree(muse / "feats")
    with pytest.raises(
        ValueError, match=r"feats/Faces: no such folder; --clips_from faces needs it"
    ):
        load_hume_reaction(muse, "faces")
    with pytest.raises(ValueError, match=r"called 'FAUs'; there are: none"):
        load_hume_reaction(muse, "FAUs")


def test_face_crops_come_in_numerical_order_without_stray_files(muse):
    clips = {clip.clip_id: clip for clip in load_hume_reaction(muse)}
    assert [path.name for path in clips["00000"].files] == ["0.jpg", "500.jpg", "1000.jpg"]


def test_the_abaw_layout_is_read_by_position_and_finds_its_videos(tmp_path):
    write_csv(
        tmp_path / "data_info.csv",
        ["File_ID", "Split", *REACTIONS, "Age", "Country"],
        ["[00001]", "Val", *LABELS["00001"], "33", "South Africa"],
        ["[00000]", "Train", *LABELS["00000"], "20", "United States"],
        ["[00007]", "Test", *(["nan"] * 7), "", "United States"],
        ["[00009]", "Train", *LABELS["00009"], "41", "South Africa"],
    )
    for place in (
        "val/mp4/00001.mp4",
        "train/mp4/00000.mp4",
        "test/mp4/00007.mp4",
        "train/wav/00009.wav",
    ):
        empty_clip(tmp_path / place)
    clips = load_hume_reaction(tmp_path)
    assert [
        (clip.clip_id, clip.split, clip.path.relative_to(tmp_path).as_posix()) for clip in clips
    ] == [
        ("00000", "train", "train/mp4/00000.mp4"),
        ("00001", "validation", "val/mp4/00001.mp4"),
        ("00007", "test", "test/mp4/00007.mp4"),
    ]
    assert list(clips[1].labels.values()) == LABELS["00001"]
    assert not clips[2].is_labelled


@pytest.mark.parametrize(
    ("file", "row", "message"),
    [
        ("labels.csv", ["[00000]", *([0] * 7)], "labels.csv:8: '[00000]' is there twice"),
        ("labels.csv", ["[00020]", 2, *([0] * 6)], "labels.csv:8: labels must be in [0, 1]"),
        ("labels.csv", ["[00020]", "x", *([0] * 6)], "labels.csv:8: labels must be 7 numbers"),
        ("labels.csv", ["[00020]", 0], "labels.csv:8: expected 8 values; got 2"),
        ("partition.csv", ["[00020]", "x", "dev"], "partition.csv:8: the split must be one of"),
        ("partition.csv", ["", "x", "train"], "partition.csv:8: '' is no id such as [00042]"),
    ],
)
def test_a_wrong_line_of_the_corpus_is_named(muse, file, row, message):
    with (muse / file).open("a", encoding="utf-8", newline="") as table:
        csv.writer(table).writerow(row)
    with pytest.raises(ValueError, match=r"csv:8") as caught:
        load_hume_reaction(muse)
    assert message in str(caught.value)


def test_labels_in_another_order_are_refused(muse):
    text = (
        (muse / "labels.csv")
        .read_text("utf-8")
        .replace("Adoration,Amusement", "Amusement,Adoration")
    )
    (muse / "labels.csv").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"labels\.csv:1: the columns must be File_ID, Adoration"):
        load_hume_reaction(muse)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'file_name,joy\n"' + b"x" * 200_000])
def test_a_file_that_is_no_table_is_named(muse, own, content):
    for path, read in (
        (own / "train" / "metadata.csv", load_clip_folder),
        (muse / "partition.csv", load_hume_reaction),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{path.name}: not a table in UTF-8"):
            read(own if read is load_clip_folder else muse)


def test_a_corpus_without_clips_or_tables_says_so(muse, tmp_path):
    with pytest.raises(ValueError, match=r"neither labels\.csv with partition\.csv"):
        load_hume_reaction(tmp_path)
    shutil.rmtree(muse / "feats" / "Faces")
    with pytest.raises(ValueError, match=r"no clip of 6 ids"):
        load_hume_reaction(muse)


# The cache ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, tiny_mma, tiny_processor):
    return AffectCache(tmp_path / "affect", tiny_mma, tiny_processor, fps=2.0)


def test_cached_affect_is_that_of_prediction_bit_by_bit_without_the_frames_that_have_no_face(
    tmp_path, tiny_model, tiny_processor
):
    path = face_clip(tmp_path / "a.mp4", "FGF")
    cache = AffectCache(tmp_path / "affect", tiny_model.mma, tiny_processor, fps=2.0)
    computed = cache.compute(record(path))
    table = predict_video(path, tiny_model, tiny_processor).frames
    predicted = table.loc[table["face"], affect_names()].to_numpy(np.float32)
    assert computed.shape == (2, 26)
    assert (computed == predicted).all()
    assert (cache.stored(record(path)) == computed).all()


def test_face_crops_of_any_size_are_taken_as_they_come(tmp_path, cache):
    for number, side in enumerate((40, 24, 32)):
        write_crop(tmp_path / "00001" / f"{number}.png", side)
    affect = cache.compute(record(tmp_path / "00001"))
    assert affect.shape == (3, 26)
    with Image.open(tmp_path / "00001" / "1.png") as image:
        alone = extract_affect([np.asarray(image)], cache.extractor, cache.processor)
    np.testing.assert_allclose(affect[1], alone[0], atol=1e-6)


def ids_of(split):
    return [clip.clip_id for clip in split.clips]


@pytest.fixture
def computed(monkeypatch):
    """Names of the clips whose affect was computed, in that order."""
    names = []
    compute = AffectCache.compute

    def noted(cache, clip):
        names.append(clip.clip_id)
        return compute(cache, clip)

    monkeypatch.setattr(AffectCache, "compute", noted)
    return names


def test_a_second_run_computes_nothing_and_a_cut_off_one_goes_on(tmp_path, cache, computed):
    clips = [record(face_clip(tmp_path / f"{name}.mp4")) for name in "abc"]
    first = read_splits(clips[:1], cache)["train"]
    second = read_splits(clips, cache, start=0.67)["train"]  # begins at c
    third = read_splits(clips, cache)["train"]
    assert computed == ["a", "c", "b"]
    assert ids_of(second) == ids_of(third) == ["a", "b", "c"]
    assert (second.rows[0] == first.rows[0]).all()
    assert all((one == other).all() for one, other in zip(second.rows, third.rows, strict=True))
    assert second.fingerprint == third.fingerprint
    files = [path for path in cache.folder.rglob("*") if path.is_file()]
    assert [path.suffix for path in files] == [".safetensors"] * 3  # each row is written once


def test_rows_beyond_the_memory_limit_are_read_from_their_files(tmp_path, cache, monkeypatch):
    clips = [record(face_clip(tmp_path / f"{name}.mp4", letters)) for name, letters in LETTERS]
    held = read_splits(clips, cache)["train"]
    monkeypatch.setattr(clip_cache, "MEMORY", 2 * 26 * 4)
    stored = read_splits(clips, cache)["train"]
    assert isinstance(stored.rows, StoredRows)
    assert not isinstance(held.rows, StoredRows)
    kept, read = ClipDataset.from_files(held), ClipDataset.from_files(stored)
    sent = pickle.loads(pickle.dumps(read))  # noqa: S301 - our own bytes
    for index in range(3):
        assert (kept[index]["affect"] == read[index]["affect"]).all()
        assert (kept[index]["affect"] == sent[index]["affect"]).all()
    assert read.lengths.tolist() == [2, 1, 3]
    assert ClipDataset.from_files(stored, 2).clip_ids == ["a", "b"]


LETTERS = (("a", "FF"), ("b", "F"), ("c", "FFF"))


def truncate(path, other):
    path.write_bytes(path.read_bytes()[:-60])


def flip_a_bit(path, other):
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def empty(path, other):
    path.write_bytes(b"")


def put_another_clips(path, other):
    shutil.copy(other, path)


def put_fewer_columns(path, other):
    rows = np.zeros((2, 9), np.float32)
    checksum = f"{zlib.crc32(rows):08x}"
    save_file({"rows": rows}, path, {"key": path.stem, "checksum": checksum})


@pytest.mark.parametrize(
    "spoil", [truncate, flip_a_bit, empty, put_another_clips, put_fewer_columns]
)
def test_a_damaged_or_foreign_cache_file_is_noticed_and_computed_again(
    tmp_path, cache, caplog, computed, spoil
):
    clips = [
        record(face_clip(tmp_path / "a.mp4", "FF")),
        record(face_clip(tmp_path / "b.mp4", "F")),
    ]
    affect = cache.compute(clips[0])
    cache.compute(clips[1])
    spoil(*(cache.path_of(cache.key_of(clip)) for clip in clips))
    computed.clear()
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        again = read_splits(clips, cache)["train"].rows
    assert computed == ["a"]
    assert "computed again" in caplog.text
    assert (again[0] == affect).all()
    assert (cache.stored(clips[0]) == affect).all()


@pytest.mark.parametrize("change", ["label", "clip", "extractor", "another clip"])
def test_a_splits_fingerprint_changes_with_anything_in_it(tmp_path, cache, change):
    def fingerprint(clips):
        return read_splits(clips, cache)["train"].fingerprint

    clips = [record(face_clip(tmp_path / f"{name}.mp4"), joy=0.5) for name in "ab"]
    first = fingerprint(clips)
    assert fingerprint(clips) == first
    if change == "label":
        clips[1] = record(clips[1].path, joy=0.25)
    elif change == "clip":
        os.utime(clips[1].path, ns=(0, 1_000_000_000))
    elif change == "extractor":
        with torch.no_grad():
            next(iter(cache.extractor.parameters())).flatten()[0] += 1
        cache = AffectCache(cache.folder, cache.extractor, cache.processor, cache.fps)
    else:
        clips.append(record(face_clip(tmp_path / "c.mp4")))
    assert fingerprint(clips) != first


def test_labelled_clips_come_first_and_those_without_a_face_are_named(tmp_path, cache):
    light = {"a": "F", "b": "G", "c": "FF", "d": "G", "e": "FFF"}
    clips = [
        record(
            face_clip(tmp_path / f"{name}.mp4", letters),
            "validation",
            joy=math.nan if name in "ad" else 0.5,
        )
        for name, letters in light.items()
    ]
    for _ in range(2):  # made, then from the disk
        done = read_splits(clips, cache)["validation"]
        assert ids_of(done) == ["c", "e", "a"]
        assert done.labelled == 2
        assert done.without_rows == ["b", "d"]
        assert ClipDataset.from_files(done).lengths.tolist() == [2, 3, 1]
        assert ClipDataset.from_files(done).labels.nan_to_num(9).flatten().tolist() == [0.5, 0.5, 9]


def test_a_clip_that_cannot_be_read_while_its_file_is_damaged_is_given_up_and_tried_again_later(
    tmp_path, cache
):
    clips = [record(face_clip(tmp_path / f"{name}.mp4")) for name in "ab"]
    path = clips[0].path
    good, status = path.read_bytes(), path.stat()

    def put(content):  # of the same size and time, as after a disk's hiccup
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    read_splits(clips, cache)
    truncate(cache.path_of(cache.key_of(clips[0])), None)
    put(bytes(len(good)))
    done = read_splits(clips, cache)["train"]
    assert (ids_of(done), done.unreadable) == (["b"], ["a"])
    put(good)
    done = read_splits(clips, cache)["train"]
    assert (ids_of(done), done.unreadable) == (["a", "b"], [])


def test_what_the_affect_depends_on_has_a_file_of_its_own(tmp_path, tiny_mma, tiny_processor):
    clip = record(face_clip(tmp_path / "a.mp4"))

    def path_of(fps=2.0):
        return AffectCache(tmp_path / "affect", tiny_mma, tiny_processor, fps).key_of(clip)

    paths = [path_of(), path_of(fps=3.0)]
    os.utime(clip.path, ns=(0, 1_000_000_000))
    paths.append(path_of())
    tiny_processor.image_mean = [0.5, 0.5, 0.4]
    paths.append(path_of())
    with torch.no_grad():
        next(iter(tiny_mma.parameters())).flatten()[0] += 1e-6
    paths.append(path_of())
    assert len(set(paths)) == 5
    assert path_of() == paths[-1]


def test_clips_without_a_face_and_unreadable_ones_are_counted_logged_and_left_out(
    tmp_path, cache, caplog
):
    (tmp_path / "broken.mp4").write_bytes(bytes(100))
    write_crop(tmp_path / "crops" / "0.jpg")
    (tmp_path / "crops" / "1.jpg").write_bytes(b"no picture")
    clips = [
        record(face_clip(tmp_path / "none.mp4", "GG")),
        record(tmp_path / "broken.mp4"),
        record(face_clip(tmp_path / "good.mp4")),
        record(tmp_path / "crops"),
        record(tmp_path / "gone.mp4"),
    ]
    with caplog.at_level(logging.INFO, logger="mma_mrnnet"):
        done = read_splits(clips, cache)["train"]
    assert ids_of(done) == ["good"]
    assert done.without_rows == ["none"]
    assert done.unreadable == ["broken", "crops", "gone"]
    assert (
        "rows of 1 clips of train; besides, 1 without a face or usable row, 3 unreadable"
        in caplog.text
    )


# Scores ------------------------------------------------------------------------------------------------------------


def affect_rows(frames, labels):
    """Clips of so many frames, all 0, with K labels each."""
    columns = {
        "clip_id": list(frames),
        "subject": [""] * len(frames),
        "kind": ["reaction"] * len(frames),
        "affect": [np.zeros((count, 26), np.float32) for count in frames.values()],
        "labels": labels,
    }
    return ClipDataset.from_rows(
        datasets.Dataset.from_dict(columns, features=clip_features(len(labels[0])))
    )


def test_a_report_takes_any_number_of_targets_lengths_above_30_and_missing_labels():
    labels = [(0.0, 0.5), (0.5, math.nan), (1.0, 0.1)]
    rows = affect_rows({"0": 35, "1": 40, "2": 12}, labels)
    intensities = torch.tensor([[0.1, 0.2], [0.2, 0.9], [0.3, 0.3]])
    report = score_clips(intensities, torch.tensor(labels), rows, ["joy", "calm"])
    assert list(report.mean_pearson_by_length)[-1] == "31-40"
    assert report.mean_pearson_by_length["31-40"].clips == 2
    # joy rises with its labels: 1; calm has two labelled rows, 0.5 -> 0.2 and 0.1 -> 0.3, that fall: -1.
    assert report.reactions.pearson == pytest.approx({"joy": 1.0, "calm": -1.0})
    assert report.reactions.mean_pearson == pytest.approx(0.0, abs=1e-9)
    # joy: (0.1 + 0.3 + 0.7) / 3; calm: (0.3 + 0.2) / 2.
    assert report.reactions.mae == pytest.approx({"joy": 1.1 / 3, "calm": 0.25})
    # Of the two long clips only joy has two labels: 1.
    assert report.mean_pearson_by_length["31-40"].mean_pearson == pytest.approx(1.0)


# The whole path ----------------------------------------------------------------------------------------------------

SMALL = [
    "--num_frames",
    "4",
    "--hidden_size",
    "8",
    "--dense_size",
    "6",
    "--epochs",
    "2",
    "--learning_rate",
    "0.01",
]


@pytest.fixture
def extractor(tmp_path, tiny_mma, tiny_processor):
    tiny_mma.save_pretrained(tmp_path / "mma")
    tiny_processor.save_pretrained(tmp_path / "mma")
    return tmp_path / "mma"


def train(extractor, run, *words):
    assert (
        main(["--stage", "mrnn", "--mma", str(extractor), "--output", str(run), *SMALL, *words])
        == 0
    )
    return json.loads((run / "results.json").read_text("utf-8"))


@pytest.fixture
def own_clips(tmp_path):
    """Four clips a split of 1 to 5 frames, without a test split; one label missing, one clip without a face."""
    folder = tmp_path / "clips"
    frames = {"a": "FFF", "b": "F", "c": "FFFFF", "d": "FGF", "e": "G"}
    for split in ("train", "validation"):
        rows = []
        for number, (name, letters) in enumerate(frames.items()):
            face_clip(folder / split / f"{name}.mp4", letters, light=1 - 0.15 * number)
            rows.append([f"{name}.mp4", number / 4, "" if name == "b" else 1 - number / 8])
        write_csv(folder / split / "metadata.csv", ["file_name", "joy", "calm down"], *rows)
    return folder


def test_a_users_own_clips_become_a_model_that_predicts_their_targets(
    own_clips, extractor, tmp_path
):
    run = tmp_path / "run"
    results = train(extractor, run, "--data", f"clips:{own_clips}", "--batch_size", "4")
    assert results["data"] == {
        "data": "a user's own clips, as videos",
        "people_apart": False,
        "train_reaction": 4,
        "validation_reaction": 4,
        "without_face": 2,
        "unreadable": 0,
        "unlabelled": 0,
    }
    assert "test" not in results
    assert not (run / "predictions_test.csv").exists()
    assert list(results["validation"]["reactions"]["pearson"]) == ["joy", "calm down"]
    assert len(list((run / "affect").rglob("*.safetensors"))) == 10

    model, processor = load_checkpoint(run / "model")
    assert (
        model.config.calibrated,
        model.config.relative_labels,
        model.config.simulated_labels,
    ) == (
        True,
        False,
        False,
    )
    prediction = predict_video(own_clips / "train" / "a.mp4", model, processor)
    assert list(prediction.intensities) == ["joy", "calm down"]
    assert all(0 <= value <= 1 for value in prediction.intensities.values())
    assert not prediction.relative

    card = (export_checkpoint(run / "model", tmp_path / "export") / "README.md").read_text("utf-8")
    assert "| calm down |" in card
    assert "simulat" not in card
    assert "on validation, the split that chose the epoch" in card
    assert "1 more clips show no face or cannot be read" in card


def predictions(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_a_clip_without_a_face_is_predicted_as_the_training_mean_in_scores_and_table(
    own_clips, extractor, tmp_path
):
    run = tmp_path / "run"
    empty_clip(own_clips / "validation" / "broken.mp4")
    face_clip(own_clips / "validation" / "unrated.mp4", "FF")
    with (own_clips / "validation" / "metadata.csv").open("a", encoding="utf-8") as table:
        table.write("unrated.mp4,,\nbroken.mp4,0,0\n")
    results = train(extractor, run, "--data", f"clips:{own_clips}", "--batch_size", "4")
    header, *rows = predictions(run / "predictions_validation.csv")
    assert header == ["file_name", "joy", "calm down"]
    names = ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4", "unrated.mp4", "broken.mp4"]
    assert [row[0] for row in rows] == names
    # Training labels: joy 0, 1/4, 1/2, 3/4, 1; calm down 1, none, 3/4, 5/8, 1/2, of which the sum is 2.875.
    assert rows[4] == ["e.mp4", "0.500000", "0.718750"]
    assert rows[6] == ["broken.mp4", "0.500000", "0.718750"]
    model, processor = load_checkpoint(run / "model")
    for row in (rows[0], rows[5]):
        predicted = predict_video(own_clips / "validation" / row[0], model, processor).intensities
        assert [float(cell) for cell in row[1:]] == pytest.approx(
            list(predicted.values()), abs=1e-5
        )

    report = results["validation"]
    assert (report["clips"], report["reactions"]["clips"]) == (6, 6)  # all but the unrated one
    assert report["predicted_as_training_mean"] == 2
    assert report["reactions_with_face"]["clips"] == 4
    assert sum(part["clips"] for part in report["mean_pearson_by_length"].values()) == 4
    # The two guesses are off by 1 - 1/2 and by 1/2 - 0.
    errors = 4 * report["reactions_with_face"]["mae"]["joy"] + 0.5 + 0.5
    assert report["reactions"]["mae"]["joy"] == pytest.approx(errors / 6, abs=1e-4)
    before = results["validation_before_calibration"]
    assert (before["clips"], before["predicted_as_training_mean"]) == (6, 2)
    # The epoch was chosen by the clips with a face, before calibration, which leaves a correlation as it is.
    best = results["training"]["history"][results["training"]["best_epoch"] - 1]["score"]
    assert best == pytest.approx(before["reactions_with_face"]["mean_pearson"], abs=1e-4)


def test_a_card_says_that_people_are_in_one_split_only_where_the_table_names_them(
    own_clips, extractor, tmp_path
):
    for split in ("train", "validation"):
        header, *rows = predictions(own_clips / split / "metadata.csv")
        rows = [[*row, f"{split} {number}"] for number, row in enumerate(rows)]
        write_csv(own_clips / split / "metadata.csv", [*header, "subject"], *rows)
    face_clip(own_clips / "test" / "x.mp4", "FF")
    write_csv(
        own_clips / "test" / "metadata.csv",
        ["file_name", "joy", "calm down", "subject"],
        ["x.mp4", 1, 0, "x"],
    )
    results = train(
        extractor, tmp_path / "run", "--data", f"clips:{own_clips}", "--batch_size", "4"
    )
    assert results["data"]["people_apart"] is True
    card = (
        export_checkpoint(tmp_path / "run" / "model", tmp_path / "export") / "README.md"
    ).read_text("utf-8")
    assert "of people in no other split (1 test clips)" in card
    assert "show no face" not in card


def test_a_challenge_table_holds_every_id_of_a_split_as_the_corpus_writes_it(
    muse, extractor, tmp_path
):
    run = tmp_path / "run"
    with (muse / "partition.csv").open("a", encoding="utf-8") as table:
        table.write("[00002],x,test\n[00008],x,devel\n")
    with (muse / "labels.csv").open("a", encoding="utf-8") as table:
        table.write("[00008],1,0,0,0,0,0,0\n")
    results = train(extractor, run, "--data", f"hume:{muse}", "--batch_size", "2")
    header, *rows = predictions(run / "predictions_test.csv")
    assert header == ["File_ID", *REACTIONS]
    assert [row[0] for row in rows] == ["[00002]", "[00003]"]
    mean = [(one + other) / 2 for one, other in zip(LABELS["00000"], LABELS["00007"], strict=True)]
    assert [float(cell) for cell in rows[0][1:]] == pytest.approx(mean, abs=1e-6)
    assert [float(cell) for cell in rows[1][1:]] != pytest.approx(mean, abs=1e-3)
    assert [row[0] for row in predictions(run / "predictions_validation.csv")] == [
        "File_ID",
        "[00001]",
        "[00008]",
    ]
    assert (
        results["validation"]["clips"],
        results["validation"]["predicted_as_training_mean"],
    ) == (2, 1)
    assert results["data"]["unreadable"] == 2
    assert "test" not in results
    assert not [path for path in run.iterdir() if path.name.endswith(".tmp")]


def test_a_set_of_hume_features_trains_a_model_without_an_extractor(muse, tmp_path):
    """Rows every half second, in milliseconds; a validation id without a table still gets a prediction."""
    with (muse / "partition.csv").open("a", encoding="utf-8") as table:
        table.write("[00008],x,devel\n")
    with (muse / "labels.csv").open("a", encoding="utf-8") as table:
        table.write("[00008],1,0,0,0,0,0,0\n")
    for number, clip_id in enumerate(("00000", "00007", "00001", "00003")):
        rows = [[f"[{clip_id}]", 500 * row, number + row, 7] for row in range(3)]
        write_csv(
            muse / "feats" / "FAUs" / f"{clip_id}.csv",
            ["File_ID", "timestamp", "AU01", "AU02"],
            *rows,
        )
    run = tmp_path / "run"
    words = [
        "--stage",
        "mrnn",
        "--data",
        f"hume:{muse}",
        "--clips_from",
        "FAUs",
        "--output",
        str(run),
        *SMALL,
    ]
    assert main([*words, "--batch_size", "2"]) == 0
    results = json.loads((run / "results.json").read_text("utf-8"))
    assert results["data"]["data"] == "Hume-Reaction, as tables of features (MuSe)"
    assert (results["data"]["train_reaction"], results["data"]["unreadable"]) == (2, 1)
    assert (
        results["validation"]["clips"],
        results["validation"]["predicted_as_training_mean"],
    ) == (2, 1)
    assert [row[0] for row in predictions(run / "predictions_validation.csv")] == [
        "File_ID",
        "[00001]",
        "[00008]",
    ]
    assert [row[0] for row in predictions(run / "predictions_test.csv")] == ["File_ID", "[00003]"]
    model, _ = load_checkpoint(run / "model")
    assert (model.mma, model.config.feature_names, model.config.relative_labels) == (
        None,
        ["AU01", "AU02"],
        True,
    )
    # AU01 of the two training clips: 0, 1, 2 and 1, 2, 3; AU02 never changes.
    assert model.feature_mean.tolist() == pytest.approx([1.5, 7.0])
    # Five deviations become 1.
    assert model.feature_scale.tolist() == pytest.approx([5 * math.sqrt(11 / 12), 5.0])


def test_scores_over_all_clips_and_over_those_with_a_face_by_hand():
    labels = [(0.0, 0.5), (0.5, math.nan), (1.0, 0.1)]
    rows = affect_rows({"a": 3, "b": 4, "c": 5}, labels)
    files = [record(Path(f"{name}.mp4"), "validation", joy=0.0, calm=0.0) for name in "abc"]
    files.insert(1, record(Path("none.mp4"), "validation", joy=1.0, calm=0.5))
    files.append(record(Path("unrated.mp4"), "validation", joy=math.nan, calm=math.nan))
    split = ClipSplit(rows, rows, files)
    intensities = torch.tensor(
        [[0.1, 0.2], [0.2, 0.9], [0.3, 0.3], [0.9, 0.9]]
    )  # the last is an unrated clip's
    report = score_split(intensities, split, ["joy", "calm"], torch.tensor([0.4, 0.3]))
    assert (report.clips, report.predicted_as_training_mean) == (4, 1)
    # joy: errors 0.1, 0.3, 0.7 with a face, |1 - 0.4| without; calm: 0.3, 0.2 and |0.5 - 0.3|.
    assert report.reactions_with_face.mae == pytest.approx({"joy": 1.1 / 3, "calm": 0.25})
    assert report.reactions.mae == pytest.approx({"joy": 1.7 / 4, "calm": 0.7 / 3})
    # joy: labels 0, 1/2, 1, 1 against 0.1, 0.2, 0.3, 0.4: covariance 0.175 / 4, variances 0.6875 / 4 and 0.05 / 4.
    assert report.reactions.pearson["joy"] == pytest.approx(0.175 / math.sqrt(0.6875 * 0.05))
    assert report.reactions_with_face.pearson["joy"] == pytest.approx(1.0)


def test_a_mean_label_is_over_the_clips_that_have_it():
    clips = [record(Path("a"), joy=0.25, calm=math.nan), record(Path("b"), joy=0.75, calm=0.5)]
    assert mean_label(clips).tolist() == [0.5, 0.5]


def test_a_test_split_in_which_no_face_was_found_is_all_training_mean(
    own_clips, extractor, tmp_path
):
    for name, letters in (("x", "G"), ("y", "GG")):
        face_clip(own_clips / "test" / f"{name}.mp4", letters)
    write_csv(
        own_clips / "test" / "metadata.csv",
        ["file_name", "joy", "calm down"],
        ["x.mp4", 1, 0],
        ["y.mp4", 0, 1],
    )
    results = train(
        extractor, tmp_path / "run", "--data", f"clips:{own_clips}", "--batch_size", "4"
    )
    assert (results["test"]["clips"], results["test"]["predicted_as_training_mean"]) == (2, 2)
    assert results["test"]["reactions"]["mae"] == {"joy": 0.5, "calm down": 0.5}
    card = (
        export_checkpoint(tmp_path / "run" / "model", tmp_path / "export") / "README.md"
    ).read_text("utf-8")
    assert "(0 test clips; who is in them is not known, so people may be in training too)" in card
    assert "2 more clips show no face" in card
    assert predictions(tmp_path / "run" / "predictions_test.csv")[1:] == [
        ["x.mp4", "0.500000", "0.718750"],
        ["y.mp4", "0.500000", "0.718750"],
    ]


def test_hume_reaction_from_face_crops_becomes_a_model_and_its_unlabelled_test_split_is_not_scored(
    muse, extractor, tmp_path
):
    cache = tmp_path / "shared affect"
    words = ["--data", f"hume:{muse}", "--batch_size", "2", "--cache", str(cache)]
    results = train(extractor, tmp_path / "run", *words)
    assert (results["data"]["train_reaction"], results["data"]["validation_reaction"]) == (2, 1)
    assert results["data"]["unlabelled"] == 1
    assert "test" not in results
    assert len(list(cache.rglob("*.safetensors"))) == 4  # those of the test split as well
    config = MMAMRNNetForIntensity.from_pretrained(tmp_path / "run" / "model").config
    assert config.label_names == list(REACTIONS)
    assert (config.relative_labels, config.simulated_labels) == (True, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "clips:"], "clips:FOLDER or hume:FOLDER; got 'clips:'"),
        (["--data", "hume:{muse}", "--sampling_fps", "3"], "its face crops come at 2 a second"),
        (
            ["--data", "hume:{muse}", "--clips_from", "FAU"],
            "no set of features is called 'FAU'; there are: FAUs",
        ),
        (
            ["--data", "clips:{muse}", "--clips_from", "faces"],
            "--clips_from faces goes with --data hume:FOLDER",
        ),
        (
            ["--data", "simulated", "--clips_from", "faces"],
            "--clips_from faces goes with --data hume:FOLDER",
        ),
        (
            ["--data", "simulated:mars"],
            "must be one of people, noise, lengths, rate, other, measured; got 'mars'",
        ),
        (
            ["--data", "simulated:"],
            "must be one of people, noise, lengths, rate, other, measured; got ''",
        ),
        (["--data", "simulated:people", "--features", "x"], "--data simulated has none"),
        (["--data", "hume:{muse}", "--ignore", "x"], "--label_range go with --data clips:FOLDER"),
        (["--data", "clips:{muse}", "--label_range", "7", "1"], "needs the lowest and the highest"),
        (["--data", "clips:{muse}", "--table_fps", "0"], "--table_fps must be a number above 0"),
    ],
)
def test_data_that_cannot_be_read_is_refused_in_one_line(
    muse, extractor, tmp_path, capsys, words, message
):
    words = [word.format(muse=muse) for word in words]
    assert (
        main(
            ["--stage", "mrnn", "--mma", str(extractor), "--output", str(tmp_path / "run"), *words]
        )
        == 1
    )
    assert message in capsys.readouterr().err


def test_the_worked_example_of_the_docs_is_read_as_the_docs_say(own):
    page = (Path(__file__).resolve().parents[1] / "docs" / "own_data.md").read_text("utf-8")
    (line,) = re.findall(r"^accelerate launch train\.py (.* clips:clips .*)$", page, re.MULTILINE)
    args = parse_arguments(line.replace("clips:clips", f"clips:{own}").split())
    assert (args.cache, args.mma) == ("affect", "mma_mrnnet/pretrained")
    corpus = read_corpus(args)
    assert (corpus.names, corpus.relative_labels, corpus.simulated_labels) == (
        ["joy", "boredom"],
        False,
        False,
    )
