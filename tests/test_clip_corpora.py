"""Stage 2 on real clips: both corpus layouts, the affect cache, and the whole path from a user's clips to a model."""

import csv
import logging
import math
import shutil

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from mma_mrnnet.data.corpora.clip_folder import load_clip_folder
from mma_mrnnet.data.corpora.hume_reaction import load_hume_reaction
from mma_mrnnet.data.video import write_video
from mma_mrnnet.model.labels import REACTIONS

NAN = float("nan")
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
        "missing clip": ([HEADER, ["gone.mp4", "v", "0", "1"]], ":2: the clip 'gone.mp4' is not in"),
        "listed twice": (
            [HEADER, ["a.mp4", "v", "0", "1"], ["a.mp4", "v", "0", "1"]],
            ":3: a.mp4 is listed twice",
        ),
        "value too large": ([HEADER, ["a.mp4", "v", "0", "1.5"]], ":2: boredom must be a number in [0, 1], or empty"),
        "no number": (
            [HEADER, ["a.mp4", "v", "some", "1"]],
            ":2: joy must be a number in [0, 1], or empty; got",
        ),
        "other targets": ([HEADER[:3], ["a.mp4", "v", "0"]], ":1: the targets are ['joy']; in "),
        "person in two splits": (
            [HEADER, ["a.mp4", "train-2", "0", "1"]],
            ":2: subject 'train-2' is in validation and in train",
        ),
        "no targets": ([HEADER[:2], ["a.mp4", "v"]], ":1: no target column beside ['file_name', 'subject']"),
        "no file_name": ([["name", "joy"], ["a.mp4", "0"]], ":1: columns ['file_name'] are missing"),
        "name taken": ([["file_name", "error"], ["a.mp4", "0"]], ":1: targets cannot be called ['error']"),
        "one name twice": ([["file_name", "joy", "joy"], ["a.mp4", "0", "0"]], ":1: every column needs a name"),
        "a cell too few": ([HEADER, ["a.mp4", "v", "0"]], ":2: 3 cells where the header has 4"),
        "another split's row": ([[*HEADER, "split"], ["a.mp4", "v", "0", "1", "test"]], ":2: split is 'test' in"),
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
    write_csv(root / "feats" / "FAUs" / "00000.csv", ["File_ID", "timestamp", "AU01"], ["[00000]", 0, 0.5])
    return root


def test_the_muse_layout_is_joined_by_id_with_labels_as_published(muse, caplog):
    with caplog.at_level(logging.WARNING):
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
        "left out 1 ids with neither faces nor video here, for example 00009",
    ]


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
    for place in ("val/mp4/00001.mp4", "train/mp4/00000.mp4", "test/mp4/00007.mp4", "train/wav/00009.wav"):
        empty_clip(tmp_path / place)
    clips = load_hume_reaction(tmp_path)
    assert [(clip.clip_id, clip.split, clip.path.relative_to(tmp_path).as_posix()) for clip in clips] == [
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
        ("labels.csv", ["[00020]", "x", *([0] * 6)], "labels.csv:8: labels must be numbers"),
        ("labels.csv", ["[00020]", 0], "labels.csv:8: 2 cells; at least 8 are needed"),
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
    text = (muse / "labels.csv").read_text("utf-8").replace("Adoration,Amusement", "Amusement,Adoration")
    (muse / "labels.csv").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"labels\.csv:1: the columns must be File_ID, Adoration"):
        load_hume_reaction(muse)


def test_a_corpus_without_clips_or_tables_says_so(muse, tmp_path):
    with pytest.raises(ValueError, match=r"neither labels\.csv with partition\.csv"):
        load_hume_reaction(tmp_path)
    shutil.rmtree(muse / "feats" / "Faces")
    with pytest.raises(ValueError, match=r"no clip of 6 ids"):
        load_hume_reaction(muse)
