"""Readers of licensed corpora, each on a small tree in the published format; none of the real ones is here."""

import json
import logging
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from mma_mrnnet import corpora
from mma_mrnnet.corpora import (
    CORPORA,
    clip_provenance,
    draw_frames,
    frame_readers,
    load_frames,
)
from mma_mrnnet.corpora.aff_wild2 import load_aff_wild2
from mma_mrnnet.corpora.affectnet import load_affectnet
from mma_mrnnet.corpora.bp4d import load_bp4d
from mma_mrnnet.corpora.declarations import declared_provenance
from mma_mrnnet.corpora.disfa import load_disfa
from mma_mrnnet.corpora.emotionet import load_emotionet
from mma_mrnnet.corpora.frame_tables import split_by_subject
from mma_mrnnet.corpora.labelled_folder import load_labelled_folder
from mma_mrnnet.corpora.raf_db import load_raf_db
from mma_mrnnet.features.records import action_unit_column, frame_features
from mma_mrnnet.files import write_json
from mma_mrnnet.hub.licence import weights_licence
from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.results import Provenance
from mma_mrnnet.synthetic.drawn_clips import write_drawn_reactions
from mma_mrnnet.synthetic.drawn_faces import drawn_faces
from mma_mrnnet.train import main
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.datasets import FrameCollator, FrameDataset
from mma_mrnnet.training.stages import mma_stage

NEUTRAL, ANGER, DISGUST, FEAR, HAPPINESS, SADNESS, SURPRISE = range(7)


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def put_images(folder, *names, side=16):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side), (90, 60, 30)).save(folder / name)


def labels_of(rows, root):
    """{image below root: its labels without the absent ones}."""
    table = rows.cast_column("image", corpora.datasets.Image(decode=False)).to_list()
    found = {}
    for row in table:
        path = row.pop("image")["path"].removeprefix(f"{root.as_posix()}/")
        labels = {name: value for name, value in row.items() if name not in ("subject", "source")}
        found[path] = {
            name: round(value, 4)
            for name, value in labels.items()
            if value == value and value != -100  # noqa: PLR0124
        }
    return found


def units(*present, absent=()):
    return {action_unit_column(unit): float(unit in present) for unit in (*present, *absent)}


# RAF-DB ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def raf_db(tmp_path):
    root = tmp_path / "RAF-DB"
    put(
        root / "basic/EmoLabel/list_patition_label.txt",
        "train_00001.jpg 5\ntrain_00002.jpg 1\ntrain_00003.jpg 7\ntest_0001.jpg 4\n",
    )
    put_images(root / "basic/Image/aligned", "train_00001_aligned.jpg", "train_00002_aligned.jpg")
    put_images(root / "basic/Image/aligned", "test_0001_aligned.jpg")
    return root


def test_raf_db_codes_count_from_one_and_its_test_part_is_validation(raf_db, caplog):
    splits = load_raf_db(raf_db)
    assert labels_of(splits["train"], raf_db) == {
        "basic/Image/aligned/train_00001_aligned.jpg": {"expression": SADNESS},
        "basic/Image/aligned/train_00002_aligned.jpg": {"expression": SURPRISE},
    }
    assert labels_of(splits["validation"], raf_db) == {
        "basic/Image/aligned/test_0001_aligned.jpg": {"expression": HAPPINESS}
    }
    assert "raf_db train: 1 of 3 images are missing" in caplog.text  # train_00003


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "train_00009.jpg 8",
            r"label.txt:5: expression must be one of 1, 2, 3, 4, 5, 6, 7; got '8'",
        ),
        ("train_00009.jpg 0", r"label.txt:5: expression must be one of"),
        ("train_00009.jpg happy", r"label.txt:5: expression must be a number; got 'happy'"),
        ("train_00009.jpg", r"label.txt:5: expected 2 values; got 1"),
        (
            "other_00009.jpg 1",
            r"label.txt:5: an image must be named train_... or test_...; got 'other_00009.jpg'",
        ),
        ("train_00001.jpg 2", r"label.txt:5: 'train_00001.jpg' is already in line 1"),
    ],
)
def test_a_wrong_line_of_raf_db_is_named(raf_db, line, message):
    path = raf_db / "basic/EmoLabel/list_patition_label.txt"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match=message):
        load_raf_db(raf_db)


# AffectNet ---------------------------------------------------------------------------------------------------------

AFFECTNET_HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal\n"
AFFECTNET_ROWS = (
    "1/a.jpg,0,0,9,9,1;2;3;4,1,0.75,0.25\n"  # happy
    "1/b.jpg,0,0,-1,-1,1;2,7,-0.5,0.5\n"  # contempt: valence and arousal stay
    "1/c.jpg,0,0,9,9,1;2,10,-2,-2\n"  # not a face: nothing stays
    "2/d.jpg,0,0,9,9,1;2,6,-1,1\n"  # anger, whose valence of -1 is a label
)


@pytest.fixture
def affectnet(tmp_path):
    root = tmp_path / "AffectNet"
    put(root / "Manually_Annotated_file_lists/training.csv", AFFECTNET_HEADER + AFFECTNET_ROWS)
    put(
        root / "Manually_Annotated_file_lists/validation.csv", "3/e.jpg,0,0,9,9,1;2,0,0,0\n"
    )  # no header
    put_images(
        root / "Manually_Annotated_Images",
        "1/a.jpg",
        "1/b.jpg",
        "1/c.jpg",
        "2/d.jpg",
        "3/e.jpg",
        side=24,
    )
    return root


@pytest.mark.parametrize("header", [AFFECTNET_HEADER, ""])
def test_affectnets_lists_are_read_with_and_without_their_header(affectnet, header, caplog):
    caplog.set_level(logging.INFO)
    (affectnet / "Manually_Annotated_file_lists/training.csv").write_text(header + AFFECTNET_ROWS)
    splits = load_affectnet(affectnet)
    assert labels_of(splits["train"], affectnet / "Manually_Annotated_Images") == {
        "1/a.jpg": {"expression": HAPPINESS, "valence": 0.75, "arousal": 0.25},
        "1/b.jpg": {"valence": -0.5, "arousal": 0.5},
        "2/d.jpg": {"expression": ANGER, "valence": -1.0, "arousal": 1.0},
    }
    assert splits["validation"]["expression"][:] == [NEUTRAL]
    assert "{'contempt': 1, 'none': 0, 'uncertain': 0, 'non-face': 1}" in caplog.text
    assert "affectnet train: 1 of 4 rows have no label" in caplog.text


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "9/z.jpg,0,0,9,9,1,11,0,0",
            r"training.csv:6: expression must be one of 0, 1, .*; got '11'",
        ),
        (
            "9/z.jpg,0,0,9,9,1,1,1.5,0",
            r"training.csv:6: valence must be in \[-1, 1\] \(or -2: no label\); got 1.5",
        ),
        ("9/z.jpg,0,0,9,9,1,1,0,-5", r"training.csv:6: arousal must be in"),
        ("9/z.jpg,0,0,9,9,1,1,0", r"training.csv:6: expected 9 values; got 8"),
        ("1/a.jpg,0,0,9,9,1,1,0,0", r"training.csv:6: '1/a.jpg' is already in line 2"),
    ],
)
def test_a_wrong_line_of_affectnet_is_named(affectnet, row, message):
    path = affectnet / "Manually_Annotated_file_lists/training.csv"
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(ValueError, match=message):
        load_affectnet(affectnet)


def test_affectnets_newer_release_keeps_a_label_a_file_as_text_or_number(tmp_path):
    for split, name, values in (
        ("train_set", "7", ("1", "0.5", "-0.25")),
        ("train_set", "12", (np.int64(7), np.float64(-0.5), np.float64(0.5))),  # contempt
        ("val_set", "3", ("5", "-2", "-2")),
    ):
        (tmp_path / split / "annotations").mkdir(parents=True, exist_ok=True)
        for kind, value in zip(("exp", "val", "aro"), values, strict=True):
            np.save(tmp_path / split / "annotations" / f"{name}_{kind}.npy", value)
        put_images(tmp_path / split / "images", f"{name}.jpg")
    splits = load_affectnet(tmp_path)
    assert labels_of(splits["train"], tmp_path / "train_set/images") == {
        "12.jpg": {"valence": -0.5, "arousal": 0.5},
        "7.jpg": {"expression": HAPPINESS, "valence": 0.5, "arousal": -0.25},
    }
    assert labels_of(splits["validation"], tmp_path / "val_set/images") == {
        "3.jpg": {"expression": DISGUST}
    }

    np.save(tmp_path / "train_set/annotations/7_val.npy", "1.5")
    with pytest.raises(
        ValueError, match=r"annotations:7: valence must be in \[-1, 1\] .*; got 1.5"
    ):
        load_affectnet(tmp_path)
    np.save(
        tmp_path / "train_set/annotations/7_val.npy", np.array({"a": 1})
    )  # an object: would need pickle
    with pytest.raises(ValueError, match=r"7_val\.npy: not one number"):
        load_affectnet(tmp_path)
    (tmp_path / "train_set/annotations/7_val.npy").unlink()
    with pytest.raises(ValueError, match=r"7_val\.npy: not one number"):
        load_affectnet(tmp_path)


def test_affectnet_needs_exactly_one_release(affectnet):
    with pytest.raises(
        ValueError, match="exactly one of the folders Manually_Annotated_file_lists and train_set"
    ):
        load_affectnet(affectnet / "Manually_Annotated_Images")
    (affectnet / "train_set").mkdir()
    with pytest.raises(ValueError, match="exactly one of the folders"):
        load_affectnet(affectnet)


# EmotioNet ---------------------------------------------------------------------------------------------------------


def emotionet_csv(root, text):
    put(root / "EmotioNet_FACS_aws_2020_24600.csv", text)
    put_images(root / "images", "N_01_1.jpg", "N_01_2.jpg")


def both(splits, root):
    return labels_of(splits["train"], root) | labels_of(splits["validation"], root)


def test_emotionets_quoted_and_padded_columns_are_read_and_999_is_no_label(tmp_path):
    emotionet_csv(
        tmp_path,
        "URL,URL orig, 'AU 1', 'AU 2', 'AU 12', 'AU 60'\n"
        "'http://x/N_1/N_01_1.jpg',http://o/1, 1, 0, 999, 1\n"
        "http://x/N_1/N_01_2.jpg,http://o/2,0,999,1,0\n",
    )
    splits = load_emotionet(tmp_path)
    assert both(splits, tmp_path / "images") == {
        "N_01_1.jpg": units(1, absent=[2]),
        "N_01_2.jpg": units(12, absent=[1]),
    }
    assert [len(splits["train"]), len(splits["validation"])] == [1, 1]


def test_emotionets_older_lists_have_unit_k_in_column_k_plus_one(tmp_path):
    rows = []
    for name, present in (("N_01_1.jpg", 4), ("N_01_2.jpg", 26)):
        values = ["1" if unit == present else "999" for unit in range(1, 61)]
        rows.append("\t".join([f"http://x/N_1/{name}", "http://o", *values]))
    put(tmp_path / "dataFile_0001.txt", rows[0] + "\n")
    put(tmp_path / "dataFile_0002.txt", rows[1] + "\n")
    put_images(tmp_path / "images", "N_01_1.jpg", "N_01_2.jpg")
    assert both(load_emotionet(tmp_path), tmp_path / "images") == {
        "N_01_1.jpg": units(4),
        "N_01_2.jpg": units(26),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "URL,'AU 1'\nh/N_01_1.jpg,2\n",
            r"24600.csv:2: AU 1 must be one of 0, 1 \(or 999: no label\); got '2'",
        ),
        ("URL,'AU 1'\nh/N_01_1.jpg,-1\n", "24600.csv:2: AU 1 must be one of"),
        ("address,'AU 1'\nh/N_01_1.jpg,1\n", "24600.csv:1: columns URL and 'AU 1'"),
        (
            "URL,'AU 1'\nh/N_01_1.jpg,1\nh/N_01_1.jpg,1\n",
            "24600.csv:3: 'h/N_01_1.jpg' is already in line 2",
        ),
        ("", "24600.csv: the file is empty"),
    ],
)
def test_a_wrong_line_of_emotionet_is_named(tmp_path, text, message):
    emotionet_csv(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        load_emotionet(tmp_path)


def test_a_workbook_is_read_as_its_csv_would_be(tmp_path):
    pytest.importorskip("openpyxl")
    cells = [
        ["URL", " 'AU 1'", "'AU 2'"],
        ["http://x/N_01_1.jpg", 1, 999],
        ["'http://x/N_01_2.jpg'", 999, 0],
    ]
    table = corpora.emotionet.pd.DataFrame(cells)
    table.to_excel(tmp_path / "EmotioNet_FACS_aws_2020_24600.xlsx", header=False, index=False)
    put_images(tmp_path / "images", "N_01_1.jpg", "N_01_2.jpg")
    wanted = {"N_01_1.jpg": units(1), "N_01_2.jpg": units(absent=[2])}
    assert both(load_emotionet(tmp_path), tmp_path / "images") == wanted


def test_a_workbook_without_openpyxl_is_refused_in_words(tmp_path, monkeypatch):
    put(tmp_path / "EmotioNet_FACS_aws_2020_24600.xlsx", "")
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ValueError, match=r"24600.xlsx: reading .xlsx needs openpyxl"):
        load_emotionet(tmp_path)


def test_emotionet_without_annotations_is_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"one EmotioNet_FACS\*.csv or .xlsx, or dataFile_\*.txt, must be here"
    ):
        load_emotionet(tmp_path)


# DISFA -------------------------------------------------------------------------------------------------------------

DISFA_UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)


@pytest.fixture
def disfa(tmp_path):
    for person in ("SN001", "SN002", "SN003"):
        for unit in DISFA_UNITS:
            second = 3 if unit == 12 else 0
            put(
                tmp_path / f"ActionUnit_Labels/{person}/{person}_au{unit}.txt", f"1,0\n2,{second}\n"
            )
        put_images(tmp_path / "cropped_aligned" / person, "00001.jpg", "00002.jpg")
    return tmp_path


def test_disfas_intensities_are_fifths_and_people_stay_whole(disfa):
    splits = load_disfa(disfa)
    quiet = units(absent=DISFA_UNITS)
    wanted = {}
    for person in ("SN001", "SN002", "SN003"):
        wanted[f"{person}/00001.jpg"] = quiet
        wanted[f"{person}/00002.jpg"] = quiet | {"au12": 0.6}  # 3 of 5
    assert both(splits, disfa / "cropped_aligned") == wanted
    # A fifth of three people is 0.6, rounded to one.
    assert [len(set(splits[split]["subject"])) for split in ("train", "validation")] == [2, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,0\n2,6\n", r"SN002_au4.txt:2: AU 4 must be in \[0, 5\]; got 6"),
        ("1,0\n", "SN002_au4.txt: its 1 frames are not the 2 of SN002_au1.txt"),
        ("1,0\n3,0\n", "SN002_au4.txt: its 2 frames are not the 2 of SN002_au1.txt"),
        ("1,0\n1,0\n", "SN002_au4.txt:2: '1' is already in line 1"),
        ("1,0\n1.5,0\n", "SN002_au4.txt:2: frame must be a whole number; got '1.5'"),
        ("1,0\nnan,0\n", "SN002_au4.txt:2: frame must be a whole number; got 'nan'"),
        (None, "SN002_au4.txt: cannot be read: No such file"),
    ],
)
def test_a_wrong_file_of_disfa_is_named(disfa, text, message):
    path = disfa / "ActionUnit_Labels/SN002/SN002_au4.txt"
    path.unlink()
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_disfa(disfa)


# BP4D --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bp4d(tmp_path):
    for name in ("F001_T1", "F001_T2", "M003_T1"):
        put(tmp_path / f"AUCoding/AU_OCC/{name}.csv", "0,1,12,14\n20,1,0,1\n21,9,1,0\n")
        put_images(tmp_path / "cropped_aligned" / name, "00020.jpg", "00021.jpg")
    return tmp_path


def test_bp4ds_nines_are_no_label_and_unit_14_is_left_out(bp4d, caplog):
    caplog.set_level(logging.INFO)
    splits = load_bp4d(bp4d)
    assert both(splits, bp4d / "cropped_aligned") == {
        f"{name}/{frame}.jpg": labels
        for name in ("F001_T1", "F001_T2", "M003_T1")
        for frame, labels in (("00020", units(1, absent=[12])), ("00021", units(12)))
    }
    people = [set(splits[split]["subject"]) for split in ("train", "validation")]
    assert sorted(map(sorted, people)) == [["F001"], ["M003"]]
    assert "action units [14] are left out" in caplog.text


def test_bp4ds_unit_14_is_read_where_it_is_asked_for(bp4d, caplog):
    caplog.set_level(logging.INFO)
    splits = load_bp4d(bp4d, (1, 2, 14))
    assert splits["train"].features == frame_features((1, 2, 14))
    labels = both(splits, bp4d / "cropped_aligned")
    assert labels["F001_T1/00020.jpg"] == units(1, 14)
    assert labels["F001_T1/00021.jpg"] == units(absent=[14])
    assert "action units [12] are left out" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1\n20,2\n", r"F001_T2.csv:2: AU 1 must be one of 0, 1 \(or 9: no label\); got '2'"),
        ("0,1\n20,1\n20,0\n", "F001_T2.csv:3: '20' is already in line 2"),
        (
            "frame,1\n20,1\n",
            "F001_T2.csv:1: the header must be 0 and then unit numbers; got frame,1",
        ),
        ("0,1\n20,1,0\n", "F001_T2.csv:2: expected 2 values; got 3"),
    ],
)
def test_a_wrong_file_of_bp4d_is_named(bp4d, text, message):
    (bp4d / "AUCoding/AU_OCC/F001_T2.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_bp4d(bp4d)


# Aff-Wild2 ---------------------------------------------------------------------------------------------------------

CLASSES = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other\n"
CHALLENGE_HEADER = "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26\n"
CHALLENGE_UNITS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
ALL_ABSENT = ",".join(["0"] * 12)


def aff_wild2_tree(root, annotations, expression_folder="EXPR_Classification_Challenge"):
    notes = root / annotations
    va, expr, au = (
        notes / name
        for name in ("VA_Estimation_Challenge", expression_folder, "AU_Detection_Challenge")
    )
    put(va / "Train_Set/1-30.txt", "valence,arousal\n0.5,-0.25\n-5,-5\n-1,1\n0.1,0.1\n")
    put(va / "Validation_Set/2_left.txt", "valence,arousal\n0.2,0.4\n")
    put(expr / "Train_Set/1-30.txt", CLASSES + "4\n-1\n7\n6\n")
    put(expr / "Validation_Set/3.txt", CLASSES + "0\n1\n")
    put(
        au / "Train_Set/1-30.txt",
        f"{CHALLENGE_HEADER}{ALL_ABSENT}\n1, 0,0,0,0,0,-1,0,0,0,0,1\n" + "-1,-1," * 6,
    )
    put(au / "Validation_Set/3.txt", CHALLENGE_HEADER + ALL_ABSENT + "\n")
    path = au / "Train_Set/1-30.txt"
    path.write_text(path.read_text().rstrip(",") + "\n")
    put_images(
        root / "cropped_aligned", *(f"1-30/0000{frame}.jpg" for frame in (1, 2, 3))
    )  # 4 was not detected
    put_images(root / "cropped_aligned", "2_left/00001.jpg", "3/00001.jpg", "3/00002.jpg")
    return root


@pytest.mark.parametrize("annotations", [".", "annotations"])
@pytest.mark.parametrize(
    "expression_folder", ["EXPR_Recognition_Challenge", "EXPR_Classification_Challenge"]
)
def test_a_frame_of_aff_wild2_is_one_row_with_the_labels_of_all_tasks(
    tmp_path, annotations, expression_folder, caplog
):
    root = aff_wild2_tree(tmp_path, annotations, expression_folder)
    splits = load_aff_wild2(root)
    second = units(
        1, 26, absent=[unit for unit in CHALLENGE_UNITS if unit not in (1, 12, 26)]
    )  # 12 is -1
    assert labels_of(splits["train"], root / "cropped_aligned") == {
        "1-30/00001.jpg": {
            **{"valence": 0.5, "arousal": -0.25, "expression": HAPPINESS},
            **units(absent=CHALLENGE_UNITS),
        },
        "1-30/00002.jpg": second,  # -5 and -1: neither valence nor expression
        "1-30/00003.jpg": {"valence": -1.0, "arousal": 1.0},  # "other" is no expression of ours
    }
    assert labels_of(splits["validation"], root / "cropped_aligned") == {
        "2_left/00001.jpg": {"valence": 0.2, "arousal": 0.4},
        "3/00001.jpg": {"expression": NEUTRAL, **units(absent=CHALLENGE_UNITS)},
        "3/00002.jpg": {"expression": ANGER},
    }
    assert set(splits["validation"]["subject"]) == {"2_left", "3"}
    assert "aff_wild2 train: 1 of 4 images are missing" in caplog.text
    assert (
        "train: the tasks' files of 1 videos differ in length, such as those of 1-30" in caplog.text
    )


def test_aff_wild2s_first_edition_has_eight_units_and_seven_expressions(tmp_path):
    header = "AU1,AU2,AU4,AU6,AU12,AU15,AU20,AU25\n"
    for split, video in (("Training_Set", "5"), ("Validation_Set", "6")):
        put(tmp_path / "AU_Set" / split / f"{video}.txt", header + "0,0,0,0,0,0,1,0\n")
        put(tmp_path / "EXPR_Set" / split / f"{video}.txt", CLASSES.replace(",Other", "") + "6\n")
        put_images(tmp_path / "cropped_aligned", f"{video}/00001.jpg")
    wanted = {"expression": SURPRISE, **units(20, absent=[1, 2, 4, 6, 12, 15, 25])}
    splits = load_aff_wild2(tmp_path)
    assert labels_of(splits["train"], tmp_path / "cropped_aligned") == {"5/00001.jpg": wanted}
    assert labels_of(splits["validation"], tmp_path / "cropped_aligned") == {"6/00001.jpg": wanted}


def test_s_aff_wild2s_two_files_are_read(tmp_path):
    absent = ALL_ABSENT.replace("0", "-1")
    put(
        tmp_path / "training_set_annotations.txt",
        f"image,valence,arousal,expression,aus\n7/00001.jpg,-5,-5,3,{absent}\n7/00002.jpg,0.3,0.1,-1,{ALL_ABSENT}\n",
    )
    put(
        tmp_path / "validation_set_annotations.txt",
        f"image\n8_right/00003.jpg,0.5,0.5,7,{absent}\n",
    )
    put_images(tmp_path / "cropped_aligned", "7/00001.jpg", "7/00002.jpg", "8_right/00003.jpg")
    splits = load_aff_wild2(tmp_path)
    assert labels_of(splits["train"], tmp_path / "cropped_aligned") == {
        "7/00001.jpg": {"expression": FEAR},
        "7/00002.jpg": {"valence": 0.3, "arousal": 0.1, **units(absent=CHALLENGE_UNITS)},
    }
    assert splits["validation"]["subject"][:] == ["8_right"]
    put(tmp_path / "training_set_annotations.txt", f"image\n7/00001.jpg,2,0,0,{absent}\n")
    with pytest.raises(
        ValueError, match=r"training_set_annotations.txt:2: valence must be in \[-1, 1\]"
    ):
        load_aff_wild2(tmp_path)


def test_a_video_that_another_task_validates_on_gives_no_training_rows(tmp_path, caplog):
    root = aff_wild2_tree(tmp_path, ".")
    put(root / "AU_Detection_Challenge/Train_Set/2_left.txt", CHALLENGE_HEADER + ALL_ABSENT + "\n")
    splits = load_aff_wild2(root)
    assert set(splits["train"]["subject"]) == {"1-30"}
    assert labels_of(splits["validation"], root / "cropped_aligned")["2_left/00001.jpg"] == {
        "valence": 0.2,
        "arousal": 0.4,
    }
    assert "1 training frames of 1 videos are left out" in caplog.text


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "VA_Estimation_Challenge",
            "valence,arousal\n0,0\n0,1.5\n",
            r"1-30.txt:3: arousal must be in .*; got 1.5",
        ),
        ("VA_Estimation_Challenge", "valence,arousal\n0,-2\n", "1-30.txt:2: arousal must be in"),
        (
            "VA_Estimation_Challenge",
            "arousal,valence\n0,0\n",
            "1-30.txt:1: the header must be valence,arousal",
        ),
        ("VA_Estimation_Challenge", "valence,arousal\n0\n", "1-30.txt:2: expected 2 values; got 1"),
        (
            "EXPR_Classification_Challenge",
            CLASSES + "8\n",
            "1-30.txt:2: expression must be one of .*; got '8'",
        ),
        (
            "EXPR_Classification_Challenge",
            CLASSES + "-5\n",
            "1-30.txt:2: expression must be one of",
        ),
        (
            "EXPR_Classification_Challenge",
            CLASSES.lower().replace("anger", "fury") + "1\n",
            "1-30.txt:1: the header",
        ),
        (
            "AU_Detection_Challenge",
            CHALLENGE_HEADER + ALL_ABSENT[:-1] + "2\n",
            "1-30.txt:2: AU 26 must be one of",
        ),
        ("AU_Detection_Challenge", "AU1,AU2\n0,0\n", "1-30.txt:1: the header must name units"),
    ],
)
def test_a_wrong_line_of_aff_wild2_is_named(tmp_path, file, text, message):
    root = aff_wild2_tree(tmp_path, ".")
    (root / file / "Train_Set/1-30.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_aff_wild2(root)


def test_aff_wild2_without_annotations_or_with_two_editions_is_named(tmp_path):
    root = aff_wild2_tree(tmp_path, ".")
    (root / "EXPR_Set").mkdir()
    with pytest.raises(ValueError, match="the annotations of two editions are here"):
        load_aff_wild2(root)
    with pytest.raises(ValueError, match="the annotations of one edition must be here"):
        load_aff_wild2(root / "cropped_aligned")


# A labelled folder -------------------------------------------------------------------------------------------------


def labelled_folder(root, text):
    put(root / "metadata.csv", text)
    put_images(root, "a.jpg", "more/b.jpg", "c.jpg", side=20)
    return root


def test_a_labelled_folder_takes_names_and_indices_and_any_labels(tmp_path, caplog):
    root = labelled_folder(
        tmp_path,
        "file_name,subject,split,valence,expression,au12,au99,note\n"
        'a.jpg,"Ada, L.",train,0.5,Happiness,0.25,1,x\n'
        "more/b.jpg,Ben,train,,3,nan,1,\n"
        "c.jpg,Cem,validation,-1,,1,1,\n",
    )
    splits = load_labelled_folder(root)
    assert labels_of(splits["train"], root) == {
        "a.jpg": {"valence": 0.5, "expression": HAPPINESS, "au12": 0.25},
        "more/b.jpg": {"expression": FEAR},
    }
    assert labels_of(splits["validation"], root) == {"c.jpg": {"valence": -1.0, "au12": 1.0}}
    assert splits["train"]["subject"][:] == ["Ada, L.", "Ben"]
    assert "columns ['note'] are not read" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file_name,subject,au12\na.jpg,A,1.5\n",
            r"metadata.csv:2: au12 must be in \[0, 1\]; got 1.5",
        ),
        (
            "file_name,subject,valence\na.jpg,A,-5\n",
            r"metadata.csv:2: valence must be in \[-1, 1\]; got -5",
        ),
        (
            "file_name,subject,expression\na.jpg,A,joy\n",
            "metadata.csv:2: expression must be one of neutral",
        ),
        (
            "file_name,subject,expression\na.jpg,A,7\n",
            "metadata.csv:2: expression must be one of neutral",
        ),
        (
            f"file_name,subject,expression\na.jpg,A,{'9' * 5000}\n",
            "metadata.csv:2: expression must be one of neutral",
        ),
        (
            "file_name,valence\na.jpg,0\n",
            "metadata.csv:1: columns file_name and subject must be here",
        ),
        ("file_name,subject,mood\na.jpg,A,1\n", "metadata.csv:1: no column of labels here"),
        (
            "file_name,subject,split,au12\na.jpg,A,test,1\n",
            "metadata.csv:2: split must be train or validation",
        ),
        (
            "file_name,subject,au12\na.jpg,A,1\na.jpg,B,1\n",
            "metadata.csv:3: 'a.jpg' is already in line 2",
        ),
        (
            "file_name,subject,split,au12\na.jpg,A,train,1\nc.jpg,A,validation,1\n",
            "1 subjects are in both splits, for example 'A'",
        ),
        ("file_name,subject,au12\na.jpg,A,1\n", "two subjects or more are needed"),
        ("file_name,subject,au12\nx.jpg,A,1\ny.jpg,B,1\n", "train: no labelled row has its image"),
    ],
)
def test_a_mistake_in_a_labelled_folder_is_named(tmp_path, text, message):
    labelled_folder(tmp_path, text)
    with pytest.raises(ValueError, match=message):
        load_labelled_folder(tmp_path)


def test_a_folder_that_is_all_validation_is_read_for_evaluation(tmp_path, monkeypatch):
    own = labelled_folder(
        tmp_path / "own",
        "file_name,subject,au12,split\na.jpg,A,1,validation\nc.jpg,C,N/A,validation\n"
        "more/b.jpg,B,0.5,validation\n",
    )
    frames = load_frames(f"labelled_folder:{own}", required=("validation",))
    assert frames.splits["validation"]["au12"][:] == [1.0, 0.5]  # C has no label
    assert [source.name for source in frames.provenance] == ["labelled_folder"]
    with pytest.raises(ValueError, match="labelled_folder train: no labelled row has its image"):
        load_frames(f"labelled_folder:{own}")
    monkeypatch.setattr(corpora.datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    faces = tmp_path / "faces"
    faces.mkdir()
    drawn_faces(3, seed=0, size=32).to_parquet(str(faces / "validation-0.parquet"))
    assert list(load_frames(str(faces), required=("validation",)).splits) == ["validation"]
    with pytest.raises(ValueError, match=r"no train-\*\.parquet here"):
        load_frames(str(faces))


def test_a_split_by_subject_is_a_fifth_and_the_same_in_any_order():
    table = corpora.labelled_folder.pd.DataFrame(
        {"subject": [f"person {number % 10}" for number in range(40)]}
    )
    splits = split_by_subject(table, "here")
    again = split_by_subject(table[::-1], "here")
    assert [split["subject"].nunique() for split in splits.values()] == [8, 2]
    assert set(splits["validation"]["subject"]) == set(again["validation"]["subject"])
    assert not set(splits["train"]["subject"]) & set(splits["validation"]["subject"])


# All of them -------------------------------------------------------------------------------------------------------


def test_every_reader_names_a_folder_that_is_not_there(tmp_path):
    for name, reader in frame_readers().items():
        with pytest.raises(ValueError, match="nowhere"):
            reader.read(tmp_path / "nowhere", ACTION_UNITS)
        with pytest.raises(ValueError, match="nowhere"):
            load_frames(f"{name}:{tmp_path / 'nowhere'}")


def test_several_corpora_are_put_one_after_the_other(affectnet, raf_db):
    splits = load_frames(f"affectnet:{affectnet},raf_db:{raf_db}").splits
    assert splits["train"].features == frame_features()
    assert splits["train"]["source"][:] == ["affectnet"] * 3 + ["raf_db"] * 2
    assert splits["validation"]["source"][:] == ["affectnet", "raf_db"]


def test_every_corpus_gives_the_units_that_are_asked_for(affectnet, raf_db, tmp_path):
    root = aff_wild2_tree(tmp_path / "Aff-Wild2", ".")
    tree = tmp_path / "EmotioNet"
    emotionet_csv(tree, "URL, 'AU 1', 'AU 14'\nh/N_01_1.jpg, 1, 1\nh/N_01_2.jpg,0,0\n")
    own = labelled_folder(
        tmp_path / "own", "file_name,subject,au01,au12\na.jpg,A,1,1\nc.jpg,C,0,0\n"
    )
    names = f"affectnet:{affectnet},raf_db:{raf_db},aff_wild2:{root},emotionet:{tree},labelled_folder:{own}"
    splits = load_frames(names, (1, 14)).splits
    assert splits["train"].features == splits["validation"].features == frame_features((1, 14))
    rows = [row for split in splits.values() for row in split.remove_columns("image").to_list()]
    counts = {
        source: [
            sum(row[name] == row[name] for row in rows if row["source"] == source)
            for name in ("au01", "au14")
        ]
        for source in frame_readers()
    }
    wanted = {"aff_wild2": [3, 0], "emotionet": [2, 2], "labelled_folder": [2, 0]}
    assert {source: count for source, count in counts.items() if any(count)} == wanted


def test_a_row_whose_units_are_not_asked_for_has_no_label_and_goes(disfa, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(ValueError, match="disfa train: no labelled row has its image"):
        load_disfa(disfa, (14,))
    assert "4 of 4 rows have no label" in caplog.text


def test_a_plain_folder_stays_a_folder_of_parquet_files(tmp_path, raf_db, monkeypatch):
    monkeypatch.setattr(corpora.datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    faces = tmp_path / "a,b:c"
    faces.mkdir()
    for split, seed in (("train", 0), ("validation", 1)):
        drawn_faces(3, seed=seed, size=32).to_parquet(str(faces / f"{split}-00000.parquet"))
    assert len(load_frames(str(faces)).splits["train"]) == 3
    faces = faces.rename(tmp_path / "faces")
    splits = load_frames(f"face_parquet:{faces}, raf_db:{raf_db}").splits
    assert splits["train"]["source"][:][-2:] == ["raf_db"] * 2
    assert len(splits["train"]) == 5


def test_an_unknown_corpus_is_answered_with_the_names(tmp_path):
    with pytest.raises(
        ValueError, match="no corpus is called 'affect_net'; there are aff_wild2, affectnet, bp4d"
    ):
        load_frames(f"affect_net:{tmp_path}")


# Provenance --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["aff_wild2", "affectnet", "bp4d", "disfa", "emotionet", "raf_db", "hume"]
)
def test_published_corpora_are_for_research_and_labelled_by_people(name):
    assert CORPORA[name].provenance == Provenance(name, "research-only", labels="human")
    assert weights_licence([CORPORA[name].provenance]) == "research-only"


@pytest.mark.parametrize("name", ["face_parquet", "labelled_folder", "clips"])
def test_what_a_folder_does_not_declare_is_unknown(name, tmp_path):
    assert CORPORA[name].provenance is None
    assert declared_provenance(tmp_path, [name]) == [Provenance(name)]
    assert weights_licence(declared_provenance(tmp_path, [name])) == "unknown"


def test_each_corpus_read_alone_comes_with_its_own_provenance(affectnet, raf_db, disfa):
    for name, folder in (("affectnet", affectnet), ("raf_db", raf_db), ("disfa", disfa)):
        assert load_frames(f"{name}:{folder}").provenance == (CORPORA[name].provenance,)


def test_drawn_faces_are_made_up_and_free():
    frames = draw_frames("drawn:partial", ACTION_UNITS, items=6, seed=0, image_size=32)
    assert len(frames.provenance) == 3
    assert frames.constructed_sources == [source.name for source in frames.provenance]
    assert all(source.made_up for source in frames.provenance)
    assert weights_licence(frames.provenance) == "apache-2.0"


@pytest.fixture
def mixed_crops(tmp_path, monkeypatch):
    """Parquet crops, three photos and three renders, that declare their sources."""
    monkeypatch.setattr(corpora.datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "crops"
    folder.mkdir()
    for split, seed in (("train", 0), ("validation", 1)):
        rows = drawn_faces(6, seed=seed, size=32).remove_columns("source")
        rows = rows.add_column("source", ["photo", "render"] * 3)
        rows.to_parquet(str(folder / f"{split}-00000.parquet"))
    declared = [
        {"name": "photo", "licence": "cc-by-4.0", "labels": "pseudo", "attribution": "A. Lovelace"},
        {"name": "render", "licence": "mit", "made_up": True, "labels": "constructed"},
    ]
    write_json(folder / "provenance.json", declared)
    return folder


def test_a_folder_of_crops_declares_its_sources(mixed_crops):
    frames = load_frames(str(mixed_crops))
    assert frames.provenance == (
        Provenance("photo", "cc-by-4.0", labels="pseudo", attribution="A. Lovelace"),
        Provenance("render", "mit", made_up=True, labels="constructed"),
    )
    assert frames.constructed_sources == ["render"]
    assert weights_licence(frames.provenance) == "cc-by-4.0"


def test_affectnet_mixed_with_free_crops_is_for_research_only(affectnet, mixed_crops):
    frames = load_frames(f"affectnet:{affectnet},face_parquet:{mixed_crops}")
    assert [source.name for source in frames.provenance] == ["affectnet", "photo", "render"]
    assert weights_licence(frames.provenance) == "research-only"


def test_affectnet_mixed_with_undeclared_crops_of_any_name_stays_unknown(affectnet, mixed_crops):
    (mixed_crops / "provenance.json").unlink()
    frames = load_frames(f"affectnet:{affectnet},face_parquet:{mixed_crops}")
    assert [source.licence for source in frames.provenance] == [
        "research-only",
        "unknown",
        "unknown",
    ]
    assert frames.constructed_sources == []
    assert weights_licence(frames.provenance) == "unknown"


def test_one_undeclared_source_makes_the_whole_unknown(mixed_crops, caplog):
    declared = [{"name": "photo", "licence": "mit"}, {"name": "other", "licence": "mit"}]
    write_json(mixed_crops / "provenance.json", declared)
    assert weights_licence(load_frames(str(mixed_crops)).provenance) == "unknown"
    assert "no training row is of other" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "a list with one object for each source is needed"),
        ("[{}]", "name: is missing"),
        ('[{"name": "a"}, {"name": "a"}]', "each source may be there once; got a, a"),
        ("no JSON", "Expecting value"),
    ],
)
def test_a_declaration_that_cannot_be_read_is_named(text, message, tmp_path):
    (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(ValueError, match=rf"provenance.json: .*{re.escape(message)}"):
        declared_provenance(tmp_path, ["a"])


def test_drawn_clips_in_the_layout_of_hume_reaction_are_made_up(tmp_path):
    write_drawn_reactions(tmp_path / "drawn", (1, 1, 1), size=16)
    assert clip_provenance("hume", str(tmp_path / "drawn")).made_up
    assert clip_provenance("hume", str(tmp_path)).licence == "research-only"
    write_json(tmp_path / "provenance.json", [{"name": "clips", "licence": "cc0-1.0"}])
    assert clip_provenance("clips", str(tmp_path)) == Provenance("clips", "cc0-1.0")


# What the readers share --------------------------------------------------------------------------


def test_a_changed_file_is_seen_and_no_image_is_opened(raf_db):
    for path in (raf_db / "basic/Image/aligned").iterdir():
        path.write_bytes(b"not an image")
    path = raf_db / "basic/EmoLabel/list_patition_label.txt"
    for code, expression in (("5", SADNESS), ("6", ANGER)):
        path.write_text(f"train_00001.jpg {code}\ntest_0001.jpg 4\n")
        assert load_raf_db(raf_db)["train"]["expression"][:] == [expression]


def test_crops_of_several_sizes_become_one_batch_each_scaled_by_itself(
    affectnet, raf_db, tiny_processor
):
    rows = FrameDataset(load_frames(f"affectnet:{affectnet},raf_db:{raf_db}").splits["train"])
    items = [rows[index] for index in range(len(rows))]
    assert {tuple(item["crop"].shape) for item in items} == {(24, 24, 3), (16, 16, 3)}
    batch = FrameCollator(tiny_processor)(items)
    assert batch["pixel_values"].shape == (5, 3, 32, 32)
    for index, item in enumerate(items):
        assert torch.equal(
            batch["pixel_values"][index], tiny_processor.scale(item["crop"][None])[0]
        )
    assert batch["action_unit_labels"].isnan().all()


def test_the_extractor_trains_on_named_corpora_and_reports_each(affectnet, disfa, tmp_path):
    words = [
        "--stage",
        "mma",
        "--data",
        f"affectnet:{affectnet},disfa:{disfa}",
        "--image_size",
        "32",
        "--epochs",
        "1",
    ]
    backbone = [
        "--layer_type",
        "basic",
        "--embedding_size",
        "8",
        "--hidden_sizes",
        "8",
        "8",
        "--depths",
        "1",
        "1",
    ]
    assert main([*words, *backbone, "--batch_size", "4", "--output", str(tmp_path / "run")]) == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert "labelled crops of affectnet, disfa" in json.dumps(results)
    config = json.loads((tmp_path / "run/model/config.json").read_text())
    assert config["supervised_action_units"] == list(DISFA_UNITS)


def test_the_stage_answers_an_unknown_corpus_in_words(tmp_path):
    with pytest.raises(ValueError, match="no corpus is called 'nobody'"):
        mma_stage(TrainArguments(stage="mma", data="nobody:x", output=tmp_path))
