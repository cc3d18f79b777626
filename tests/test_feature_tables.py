"""Tables of features: what is read of each format, a model trained on them, and what it says of new ones."""

import csv
import json
import logging
import math
import shutil

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from skimage.data import astronaut

from mma_mrnnet import (
    MMAMRNNetConfig,
    MMAMRNNetForIntensity,
    MMAMRNNetVideoProcessor,
    predict_image,
    predict_table,
    predict_video,
)
from mma_mrnnet.cli import main as command
from mma_mrnnet.features.clip_rows import find_unmeasured
from mma_mrnnet.features.records import clip_features
from mma_mrnnet.hub.checkpoints import load_checkpoint
from mma_mrnnet.hub.export import export_checkpoint
from mma_mrnnet.model.labels import affect_names
from mma_mrnnet.prediction import NO_ROW, write_table
from mma_mrnnet.tables.features import exactly, read_feature_table
from mma_mrnnet.train import main
from mma_mrnnet.training.datasets import ClipDataset
from mma_mrnnet.training.stages import DEVIATIONS, measure_inputs
from mma_mrnnet.video.reading import VideoError
from mma_mrnnet.video.writing import write_video

pytestmark = pytest.mark.usefixtures("settings_kept")

FACE = np.ascontiguousarray(astronaut()[:240, 100:340])


def write(path, header, *rows, separator=","):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [separator.join(map(str, row)) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# The formats -------------------------------------------------------------------------------------------------------

OPENFACE = [
    *("frame", "face_id", "timestamp", "confidence", "success"),
    *(
        "gaze_0_x",
        "gaze_0_y",
        "gaze_angle_x",
        "eye_lmk_x_0",
        "pose_Tx",
        "pose_Rx",
        "pose_Rz",
        "x_0",
        "X_0",
        "p_rx",
    ),
    *("AU01_r", "AU45_r", "AU01_c", "AU28_c"),
]


def openface_row(frame, value, person=0, success=1, rate=30):
    """A row whose features are `value`, twice it, ..., in the order of the columns that are taken."""
    taken = [value * (number + 1) for number in range(9)]
    gaze, rest = taken[:3], taken[3:]
    return [
        *(frame, person, f"{(frame - 1) / rate:.3f}", 0.98, success),
        *(*gaze, 300.1, 16.6, *rest[:2], 277, -62, 0.3),
        *rest[2:6],
    ]


def openface(path, *rows):
    return write(path, OPENFACE, *rows, separator=", ")  # with blanks, as OpenFace 2 writes it


def test_openface_gives_gaze_rotation_and_action_units_of_its_successful_rows(tmp_path):
    path = openface(
        tmp_path / "a.csv", openface_row(1, 0.5), openface_row(2, 9, success=0), openface_row(3, -1)
    )
    table = read_feature_table(path)
    assert table.kind == "OpenFace"
    assert table.names == (
        *(
            "gaze_0_x",
            "gaze_0_y",
            "gaze_angle_x",
            "pose_Rx",
            "pose_Rz",
            "AU01_r",
            "AU45_r",
            "AU01_c",
            "AU28_c",
        ),
    )
    assert table.values.dtype == np.float32
    assert table.values[:, :5].tolist() == [[0.5, 1.0, 1.5, 2.0, 2.5], [-1, -2, -3, -4, -5]]
    assert table.values[:, 8].tolist() == [4.5, -9]
    assert table.times_s.tolist() == pytest.approx([0, 0.067])
    assert table.frames.tolist() == [0, 2]
    assert table.frames_sampled == 3
    # The last frame begins at 0.067 s; the median step is (0.033 + 0.034) / 2.
    assert table.duration_s == pytest.approx(0.067 + 0.0335)


def test_of_several_faces_the_one_with_most_usable_rows_is_kept_and_the_lowest_id_of_equals(
    tmp_path,
):
    rows = [
        openface_row(frame, frame + 100 * person, person)
        for frame in (1, 2, 3)
        for person in (10, 2)
    ]
    found = read_feature_table(openface(tmp_path / "tie.csv", *rows))
    assert found.values[:, 0].tolist() == [201, 202, 203]
    rows[1][4] = 0  # face 2 is lost in the first frame
    found = read_feature_table(openface(tmp_path / "most.csv", *rows))
    assert found.values[:, 0].tolist() == [1001, 1002, 1003]
    # Sorted by person instead of by frame: the same.
    rows.sort(key=lambda row: row[1])
    assert read_feature_table(openface(tmp_path / "sorted.csv", *rows)).values[:, 0].tolist() == [
        1001,
        1002,
        1003,
    ]


def test_a_dense_table_is_sampled_as_a_video_is_and_a_lost_frame_is_not_replaced(tmp_path):
    # 30 a second for 2 s; at 2 a second frames 1, 16, 31, 46 are due, and 16 shows no face.
    rows = [openface_row(frame, frame, success=int(frame != 16)) for frame in range(1, 61)]
    found = read_feature_table(openface(tmp_path / "a.csv", *rows), fps=2.0)
    assert found.values[:, 0].tolist() == [1, 31, 46]
    assert found.times_s.tolist() == [0, 1.0, 1.5]
    assert found.frames.tolist() == [0, 30, 45]
    assert found.frames_sampled == 4


def test_rows_that_are_about_as_dense_as_the_rate_are_taken_as_they_come(tmp_path):
    # With jitter the first row at or after each half second would lose the second and the fourth.
    times = [5.0, 5.48, 6.01, 6.47, 7.0]
    path = write(
        tmp_path / "a.csv", ["timestamp", "smile"], *[(time, n) for n, time in enumerate(times)]
    )
    found = read_feature_table(path, fps=2.0)
    assert found.values[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert found.times_s.tolist() == pytest.approx([0, 0.48, 1.01, 1.47, 2.0])
    # At 1 a second they are twice as dense: the first at or after 0, 1, 2 s.
    assert read_feature_table(path, fps=1.0).values[:, 0].tolist() == [0, 2, 4]


def test_time_stamps_that_never_change_are_none(tmp_path):
    rows = [openface_row(frame, frame, rate=math.inf) for frame in range(1, 5)]
    found = read_feature_table(openface(tmp_path / "a.csv", *rows), fps=2.0)
    assert found.values[:, 0].tolist() == [1, 2, 3, 4]
    assert found.times_s is None
    assert math.isnan(found.duration_s)


FEX_BOX = ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore"]
FEX = [
    *FEX_BOX,
    "x_0",
    "y_0",
    "Pitch",
    "Roll",
    "Yaw",
    "AU01",
    "AU12",
    "anger",
    "neutral",
    "input",
    "frame",
]
FEX_2 = [
    *(
        *FEX_BOX,
        "x_0",
        "Pitch",
        "Roll",
        "Yaw",
        "X",
        "AU01",
        "Neutral",
        "Happy",
        "valence",
        "gaze_pitch",
        "Identity_1",
    ),
    *("mesh_x_0", "input", "frame", "approx_time", "Identity"),
]


def fex_row(frame, value, width=100, height=100):
    return [
        10,
        10,
        width,
        height,
        0.99,
        5,
        5,
        value,
        0,
        0,
        value + 1,
        0,
        0.25,
        0.75,
        "clip.mp4",
        frame,
    ]


def test_py_feat_gives_units_emotions_and_rotation_of_the_largest_face_of_each_frame(tmp_path):
    path = write(
        tmp_path / "a.csv",
        FEX,
        fex_row(0, 1, 40),
        fex_row(0, 2, 60),
        fex_row(0, 3, 50),
        fex_row(15, 4, 10, 500),  # 5,000 pixels
        fex_row(15, 5, 60, 60),  # 3,600
        fex_row(30, math.nan, 900),  # the larger one has no rotation
        fex_row(30, 7, 20),
        [*[""] * 14, "clip.mp4", 45],  # py-feat's row of a frame without a face
    )
    table = read_feature_table(path, fps=2.0)
    assert table.kind == "py-feat"
    assert table.names == ("AU01", "AU12", "anger", "neutral", "Pitch", "Roll", "Yaw")
    assert table.values[:, 4].tolist() == [2, 4, 7]
    assert table.values[0].tolist() == [3, 0, 0.25, 0.75, 2, 0, 0]
    assert table.frames.tolist() == [0, 1, 2]
    assert table.frames_sampled == 4
    assert table.times_s is None


def test_the_second_py_feat_has_capital_emotions_and_a_name_for_each_person(tmp_path):
    def row(frame, person, value, width=50):
        box = [1, 1, width, width, 0.9]
        return [
            *box,
            7,
            0,
            0,
            0,
            9,
            value,
            0.5,
            0.5,
            -1,
            3,
            "",
            8,
            "clip.mp4",
            frame,
            "00:01",
            person,
        ]

    rows = [
        row(0, "Person_1", 1, 90),
        row(0, "Person_0", 2),
        row(1, "Person_0", 3),
        row(1, "Person_0", 4, 60),
    ]
    table = read_feature_table(write(tmp_path / "a.csv", FEX_2, *rows))
    assert table.names == ("AU01", "Neutral", "Happy", "valence", "Pitch", "Roll", "Yaw")
    assert table.values[:, 0].tolist() == [
        2,
        4,
    ]  # the person seen most, and of its two boxes the larger


def test_muse_tables_are_taken_whole_and_their_milliseconds_are_understood(tmp_path):
    rows = [("[00042]", 250 * number, number, -number) for number in range(5)]
    table = read_feature_table(
        write(tmp_path / "00042.csv", ["File_ID", "timestamp", "0", "AU01"], *rows), fps=2.0
    )
    assert (table.kind, table.names) == ("MuSe", ("0", "AU01"))
    assert table.values.tolist() == [[0, 0], [2, -2], [4, -4]]
    assert table.times_s.tolist() == [0, 0.5, 1.0]


def test_any_other_table_gives_its_columns_of_numbers(tmp_path):
    path = write(
        tmp_path / "a.csv",
        ["", "Frame", "confidence", "mood", "smile", "note", "brow"],
        [0, 7, 0.9, "good", 1.5, "", "-2e1"],
        [1, 8, 0.9, "bad", "nan", "", 3],
        [2, 9, 0.1, "bad", "inf", "", 3],
        [3, 9, 0.1, "bad", 2.5, "", 3],
    )
    own = read_feature_table(path)
    assert own.names == ("smile", "brow")
    assert own.empty == ("note",)  # by name, instead of every row
    assert own.ignored == ("Frame", "confidence", "mood")
    assert own.values.tolist() == [[1.5, -20], [2.5, 3]]
    table = read_feature_table(path, ["brow", "s*"])
    assert (table.kind, table.names) == ("other", ("brow", "smile"))
    assert table.values.tolist() == [[-20, 1.5], [3, 2.5]]
    assert table.frames.tolist() == [0, 3]


def test_columns_are_chosen_by_patterns_in_their_order_each_once(tmp_path):
    path = openface(tmp_path / "a.csv", openface_row(1, 1))
    assert read_feature_table(path, ["AU??_c", "AU01_*", "x_0"]).names == (
        "AU01_c",
        "AU28_c",
        "AU01_r",
        "x_0",
    )
    assert read_feature_table(path, exactly(["X_0"])).names == ("X_0",)


@pytest.mark.parametrize(
    ("text", "patterns", "message"),
    {
        "no column": (
            "a,b\n1,2\n",
            ["a", "AU*", "c"],
            ":1: no column AU*, c in this other table, which has a, b",
        ),
        "reserved": ("time_s,b\n1,2\n", ["time_s"], ":1: no column time_s"),
        "twice": (
            "a,b,a\n1,2,3\n",
            None,
            ":1: every column needs a name of its own; a is there more often",
        ),
        "no header": (
            "0.5,1\n1,2\n",
            None,
            ":1: a header with the columns' names is needed; got '0.5, 1'",
        ),
        "empty": ("", None, ": the file is empty"),
        "cells": ("a,b\n1,2\n3\n", None, ":3: expected 2 values; got 1"),
        "text": ("a,b\n1,2\n3,x\n", ["b"], ":3: b must be a number, or empty; got 'x'"),
        "no numbers": ("a,b\nx,y\n", None, ":1: no column of numbers beside a, b"),
        "no time": (
            "timestamp,b\n0,1\nnoon,1\n",
            None,
            ":3: timestamp must be a number; got 'noon'",
        ),
        "empty time": ("timestamp,b\n0,1\n,1\n", None, ":3: timestamp must be a number; got ''"),
        "time falls back": (
            "timestamp,b\n0,1\n1,2\n0.5,3\n",
            None,
            ":4: not a later frame than line 3",
        ),
        "two rows a frame": ("frame,b\n0,1\n0,2\n", None, ":3: not a later frame than line 2"),
        "success": (
            "timestamp,confidence,success,AU01_r\n0,1,maybe,1\n",
            None,
            ":2: success must be 0, 1, True or False; got 'maybe'",
        ),
        "two clips": (
            "File_ID,timestamp,b\n[1],0,1\n[2],1,1\n",
            None,
            ":3: '[2]' beside '[1]': a table must hold one",
        ),
        "muse text": ("File_ID,timestamp,b\n[1],0,x\n", None, ":2: b must be a number"),
    }.values(),
)
def test_a_table_that_cannot_be_read_is_named_with_its_line(tmp_path, text, patterns, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"a\.csv:") as caught:
        read_feature_table(path, patterns)
    assert str(caught.value).startswith(f"{path}{message}")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'a,b\n"' + b"x" * 200_000])
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.csv: not a table in UTF-8"):
        read_feature_table(tmp_path / "a.csv")
    with pytest.raises(ValueError, match=r"b\.csv: cannot be read: No such file"):
        read_feature_table(tmp_path / "b.csv")


def test_a_byte_order_mark_blank_lines_and_a_table_without_rows_are_no_trouble(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfsmile,frown\r\n1,2\r\n\r\n3,4\r\n")
    assert read_feature_table(tmp_path / "a.csv").values.tolist() == [[1, 2], [3, 4]]
    empty = read_feature_table(openface(tmp_path / "b.csv"), fps=2.0)
    assert empty.values.shape == (0, 9)
    assert empty.frames_sampled == 0


# Tables as the trade writes them -----------------------------------------------------------------

NO_NUMBERS = (
    *("", " ", "nan", "NaN", "-nan", "+NAN", "-nan(ind)", "nan(snan)", "nan(0x8000000000000)"),
    *("1.#IND", "-1.#IND00", "1.#QNAN", "-1.#QNAN0", "1.#SNAN", "1.#J", "1.#INF"),
    *("#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NUM!", "#NULL!", "#NAME?", "#NV", "#WERT!"),
    *("#N/A N/A", "NA", "N/A", "n/a", "<NA>", "null", "NULL", "None", "nil", "-", "--", ".", "?"),
    *("NaT", "\u2013", "\u2014"),
)


@pytest.mark.parametrize("cell", NO_NUMBERS)
def test_every_way_to_write_no_number_leaves_its_row_out(tmp_path, cell):
    path = write(tmp_path / "a.csv", ["smile", "brow"], [1, 2], [cell, 3], [5, 4])
    assert read_feature_table(path).values.tolist() == [[1, 2], [5, 4]]


@pytest.mark.parametrize("cell", ["1,5", "abc", "#5", "1.5.2", "12:30", "nano", "nan(", "1.#"])
def test_what_is_neither_number_nor_missing_is_text(tmp_path, cell):
    path = write(tmp_path / "a.csv", ["smile", "brow"], [f'"{cell}"', 3], [5, 4])
    assert read_feature_table(path).names == ("brow",)
    with pytest.raises(ValueError, match=r"a\.csv:2: smile must be a number, or empty"):
        read_feature_table(path, ["smile"])


def test_nan_as_windows_programs_write_it_leaves_its_rows_out(shared_faulty):
    for name, spelling in (("openface_windows_nan.csv", "nan(ind)"), ("openface_nan.csv", "nan")):
        table = read_feature_table(shared_faulty / name)
        lines = (shared_faulty / name).read_text().splitlines()[1:]
        whole = [number for number, line in enumerate(lines) if spelling not in line]
        assert table.kind == "OpenFace"
        assert table.frames.tolist() == whole
        assert 0 < len(whole) < len(lines)


COUNTERS = (
    *("Unnamed: 0", "index", "idx", "frame", "Frame", "frame_idx", "FrameIndex", "frameNumber"),
    *("FrameNo", "frame-nr", "id", "ID", "face_id", "FaceId", "person_id", "segment_id"),
    *("Row", "RowNumber", "SampleNumber", "level_id", "timestamp", "TimeStamp", "Timestamp"),
    *("timestamp_ms", "frame_time_in_ms", "MediaTime", "media_time", "Timecode", "approx_time"),
    *("time", "Time (s)", "time_ms", "VideoTime", "unix_timestamp", "SUBJECT", "date"),
)


@pytest.mark.parametrize("name", COUNTERS)
def test_a_column_that_numbers_or_times_the_rows_is_no_feature_in_any_spelling(tmp_path, name):
    rows = [(number, value) for number, value in enumerate((4, 1, 3))]
    table = read_feature_table(write(tmp_path / "a.csv", [name, "smile"], *rows))
    assert table.names == ("smile",)
    assert table.ignored == (name,)


MEASURES = (
    "au01",
    "AU12_r",
    "valence",
    "mouthSmileLeft",
    "browInnerUp",
    "jawOpen",
    "Pitch",
    "wide",
)


@pytest.mark.parametrize("name", MEASURES)
def test_measures_are_features(tmp_path, name):
    assert read_feature_table(write(tmp_path / "a.csv", [name], [1], [2])).names == (name,)


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("time_ms", [0, 500, 1000, 1500]),
        ("frame_time_in_ms", [0.0, 500.0, 1000.0, 1500.0]),
        ("Timestamp", [100, 600, 1100, 1600]),  # by its steps
        ("timestamp_us", [0, 500_000, 1_000_000, 1_500_000]),
        ("Timestamp", [0, 500_000, 1_000_000, 1_500_000]),
        ("Time (s)", [0, 0.5, 1, 1.5]),
        ("MediaTime", ["00:00:10.000", "00:00:10.500", "00:00:11.000", "00:00:11.500"]),
        ("Timecode", ["10:15:27:00.0", "10:15:27:15.0", "10:15:28:00.0", "10:15:28:15.0"]),
        ("time", [7.0, 7.5, 8.0, 8.5]),
        ("timestamp", ["00:07.0", "00:07.5", "00:08.0", "00:08.5"]),
        ("time", [f"2026-01-01 10:00:0{second}" for second in ("0.0", "0.5", "1.0", "1.5")]),
        (
            "DateTime time",
            [f"2026-01-01 10:00:0{second}" for second in ("0.0", "0.5", "1.0", "1.5")],
        ),
    ],
)
def test_times_in_other_units_and_columns_are_times(tmp_path, name, cells):
    path = write(tmp_path / "a.csv", [name, "smile"], *zip(cells, (4, 1, 3, 2), strict=True))
    if name == "Timecode":  # frames 0 and 15: of 24 a second
        assert read_feature_table(path).times_s.tolist() == [0, 0.625, 1, 1.625]
        return
    table = read_feature_table(path)
    assert table.names == ("smile",)
    assert table.times_s.tolist() == pytest.approx([0, 0.5, 1, 1.5])
    assert read_feature_table(path, fps=1.0).values.tolist() == [[4], [3]]


def test_whole_seconds_that_many_frames_share_are_spread_over_them(tmp_path):
    rows = [(frame, f"00:0{frame // 10}", frame % 3) for frame in range(40)]
    path = write(tmp_path / "a.csv", ["frame", "approx_time", "smile"], *rows)
    table = read_feature_table(path, fps=2.0)
    assert table.times_s[1] == pytest.approx(0.5)
    assert table.frames.tolist() == [0, 5, 10, 15, 20, 25, 30, 35]


def test_several_people_at_one_time_are_no_coarse_clock(tmp_path):
    rows = [(second, person, 10 * person + second) for second in range(4) for person in (1, 2, 3)]
    path = write(tmp_path / "a.csv", ["TimeStamp", "face_id", "smile"], *rows)
    table = read_feature_table(path)
    assert table.values[:, 0].tolist() == [10, 11, 12, 13]
    assert table.times_s.tolist() == [0, 1, 2, 3]


def test_a_given_rate_times_the_rows_of_a_table_without_times(tmp_path):
    plain = write(tmp_path / "a.csv", ["smile"], *[[number] for number in range(30)])
    table = read_feature_table(plain, fps=2.0, table_fps=10)
    assert table.values[:, 0].tolist() == [0, 5, 10, 15, 20, 25]
    assert table.duration_s == pytest.approx(3.0)
    skipped = write(tmp_path / "b.csv", ["frame", "smile"], *[[5 * n, n] for n in range(6)])
    assert read_feature_table(skipped, table_fps=10).times_s.tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    timed = write(tmp_path / "c.csv", ["time_s", "smile"], [0, 1], [1, 2])
    assert read_feature_table(timed, table_fps=10).times_s.tolist() == [0, 1]


def test_stamps_1_ms_apart_are_said(tmp_path):
    rows = [(number / 1000, number % 3) for number in range(8)]
    table = read_feature_table(write(tmp_path / "a.csv", ["timestamp", "smile"], *rows))
    assert "1 ms apart, as for 1000 frames a second" in table.warning
    rows = [(number / 250, number % 3) for number in range(8)]
    assert (
        read_feature_table(write(tmp_path / "b.csv", ["timestamp", "smile"], *rows)).warning is None
    )


def test_the_counters_of_libreface_are_no_features_and_its_milliseconds_are_times(shared_faulty):
    table = read_feature_table(shared_faulty / "libreface.csv", fps=2.0)
    assert all(name.startswith("au_") for name in table.names)
    assert table.ignored == ("frame_idx", "frame_time_in_ms", "face_alignment_method")
    assert table.times_s is not None
    assert np.diff(table.times_s).tolist() == pytest.approx([0.5] * (len(table.values) - 1))


IMOTIONS = """#HEADER,,,,
#Study name,smiles,,,
#Export,9.3,,,
#DATA,,,,
Row,Timestamp,SampleNumber,Anger,Joy,Blink
1,0,,0.5,1.5,
2,33,,0.25,2.5,
3,67,,0.75,3.5,
"""


def test_a_preamble_is_skipped_and_columns_without_any_number_are_left_out_by_name(tmp_path):
    (tmp_path / "a.csv").write_text(IMOTIONS)
    table = read_feature_table(tmp_path / "a.csv")
    assert table.names == ("Anger", "Joy")
    assert table.empty == ("Blink",)
    assert table.ignored == ("Row", "Timestamp", "SampleNumber")
    assert table.values.tolist() == [[0.5, 1.5], [0.25, 2.5], [0.75, 3.5]]
    assert table.times_s.tolist() == pytest.approx([0, 0.033, 0.067])


def test_of_two_columns_of_times_the_first_counts(tmp_path):
    header = ["smile", "Timestamp RAW", "TimestampUTC"]
    path = write(tmp_path / "a.csv", header, [4, 0, 0], [1, 500, 9000], [3, 1000, 18000])
    assert read_feature_table(path).times_s.tolist() == [0, 0.5, 1]


def test_an_empty_column_is_left_out_of_a_pattern_but_not_if_it_is_named(tmp_path):
    path = write(tmp_path / "a.csv", ["AU01", "AU02"], [1, ""], [2, "NA"])
    assert read_feature_table(path, ["AU*"]).names == ("AU01",)
    assert len(read_feature_table(path, ["AU01", "AU02"]).values) == 0
    assert len(read_feature_table(path, exactly(["AU01", "AU02"])).values) == 0


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "a.txt",
            "frame, timestamp, confidence, success, AU01_r\n1, 0, 0.9, 1, 0.5\n2, 0.5, 0.9, 1, 1.5\n",
        ),
        ("a.tsv", "time\tsmile\n0\t0.5\n0.5\t1.5\n"),
        ("a.csv", "time;smile\n0;0,5\n0,5;1,5\n"),
        ("a.csv", "# time, smile\n0,0.5\n0.5,1.5\n"),
        ("a.csv", "time,smile,\n0,0.5,\n0.5,1.5,\n"),
        ("a.csv", "A recording of Monday\n\ntime,smile\n0,0.5\n0.5,1.5\n"),
        ("a.txt", "time  smile\n0.0   0.5\n0.5   1.5\n"),
        ("a.txt", '"time" "smile"\n"1" 0 0.5\n"2" 0.5 1.5\n'),
        ("a.csv", "sep=;\ntime;smile\n0;0,5\n0,5;1,5\n"),
        (
            "a.txt",
            "Video analysis detailed log\nFace Model:\tGeneral\n\nVideo Time\tHappy\tStimulus\n"
            "00:00:00.000\t0.5\ta\n00:00:00.500\t1.5\ta\n00:00:01.000\tFIT_FAILED\ta\n",
        ),
    ],
    ids=[
        *("OpenFace 1", "tabs", "decimal commas", "behind a #", "comma at the end", "a title"),
        *("blanks", "R's row names", "Excel's separator", "FaceReader"),
    ],
)
def test_tables_with_other_suffixes_delimiters_and_headers(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    table = read_feature_table(tmp_path / name)
    assert table.values.tolist() == [[0.5], [1.5]]
    assert table.times_s.tolist() == [0, 0.5]


def test_tabs_with_decimal_commas_and_utf_16_as_spreadsheets_write_them_are_read(tmp_path):
    text = "time\tsmile\tbrow\n0,0\t0,5\t1\n0,5\t1,25\t2\n"
    for name, encoding in (("a.tsv", "utf-8"), ("b.txt", "utf-16"), ("c.csv", "utf-16")):
        (tmp_path / name).write_text(text, encoding=encoding)
        table = read_feature_table(tmp_path / name)
        assert table.values.tolist() == [[0.5, 1], [1.25, 2]]
        assert table.times_s.tolist() == [0, 0.5]


@pytest.mark.parametrize("cells", [("1,234", "2,345"), ("1,5", "2.5")])
def test_commas_beside_tabs_that_may_group_thousands_are_no_decimal_commas(tmp_path, cells):
    (tmp_path / "a.tsv").write_text(f"smile\tbrow\n{cells[0]}\t1\n{cells[1]}\t2\n")
    assert read_feature_table(tmp_path / "a.tsv").names == ("brow",)


def test_a_parquet_table_is_that_of_its_numbers(tmp_path):
    table = pd.DataFrame({"time": [0, 0.5, 1], "smile": np.float32([0.1, np.nan, 3]), "note": "x"})
    table.to_parquet(tmp_path / "a.parquet")
    found = read_feature_table(tmp_path / "a.parquet")
    assert found.names == ("smile",)
    assert found.values[:, 0].tolist() == np.float32([0.1, 3]).tolist()
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"b\.parquet: not a parquet file"):
        read_feature_table(tmp_path / "b.parquet")


def test_columns_that_count_or_never_change_in_a_clip_are_found_over_all_clips():
    names = ["tick", "age", "smile", "AU01", "speed"]
    rng = np.random.default_rng(0)
    clips = []
    for age, length in ((20, 6), (30, 9), (40, 3)):
        rows = rng.random((length, 5)).astype(np.float32)
        rows[:, 0] = 7 + 2 * np.arange(length)
        rows[:, 1] = age
        rows[:, 3] = np.arange(length)  # by its name a measure, whatever it looks like
        clips.append(rows)
    clips[0][:, 4] = 0.5  # in one clip alone
    assert find_unmeasured(names, clips) == {
        "tick": "counts with the rows",
        "age": "is constant in each clip",
    }
    assert find_unmeasured(names, clips[:1]) == {}


@pytest.fixture
def leak(shared_faulty, tmp_path):
    """The tables of random units whose labels are their clips' lengths."""
    shutil.copytree(shared_faulty / "leak", tmp_path / "leak")
    return tmp_path / "leak"


def test_random_units_teach_nothing_of_labels_that_are_the_clips_lengths(leak, tmp_path, caplog):
    run = tmp_path / "run"
    words = ["--data", f"clips:{leak}", "--output", str(run), *SMALL, "--batch_size", "16"]
    with caplog.at_level(logging.INFO, logger="mma_mrnnet"):
        assert main(["--stage", "mrnn", *words]) == 0
    model, _ = load_checkpoint(run / "model")
    assert all(name.startswith("au_") for name in model.config.feature_names)
    assert "columns taken as features: au_1, au_12" in caplog.text
    for name in ("frame_idx", "frame_time_in_ms"):
        assert f"{name} (no feature)" in caplog.text


# Our own tables ----------------------------------------------------------------------------------------------------


def test_a_model_on_our_own_tables_says_what_the_video_model_says(
    tiny_model, tiny_processor, tmp_path
):
    grey = np.full_like(FACE, 128)
    clip = write_video(
        tmp_path / "a.mp4", [FACE, FACE, grey, grey, (FACE * 0.7).astype(np.uint8), FACE] * 2, 4
    )
    seen = predict_video(clip, tiny_model, tiny_processor, every_frame=True)
    write_table(seen.frames, tmp_path / "a.csv")
    found = read_feature_table(tmp_path / "a.csv")
    assert (found.kind, found.names) == ("mma-mrnnet", affect_names())
    assert len(found.values) == seen.frames_with_face < found.frames_sampled == 12

    config = MMAMRNNetConfig(
        feature_names=affect_names(), num_frames=4, hidden_size=8, dense_size=6
    )
    reader = MMAMRNNetForIntensity(config).eval()
    missing, _ = reader.load_state_dict(tiny_model.state_dict(), strict=False)
    assert set(missing) == {"feature_mean", "feature_scale"}
    said = predict_table(tmp_path / "a.csv", reader, tiny_processor)
    assert said.intensities == pytest.approx(seen.intensities, abs=1e-6)
    assert said.warning == "2 of 6 frames left out: no face, or a number missing"
    assert said.duration_s == pytest.approx(seen.duration_s)


# Prediction --------------------------------------------------------------------------------------------------------


@pytest.fixture
def table_model():
    config = MMAMRNNetConfig(
        feature_names=["smile", "brow"], num_frames=4, hidden_size=8, dense_size=6
    )
    model = MMAMRNNetForIntensity(config).eval()
    model.set_feature_scaling(torch.tensor([2.0, 500.0]), torch.tensor([1.0, 50.0]))
    return model


@pytest.fixture
def smiles(tmp_path):
    """Columns in another order than the model's, one more, and a gap; 4 rows a second."""
    rows = [(number / 4, 500 + number, 0, number) for number in range(8)]
    rows[2] = (0.5, "", 0, 2)
    return write(tmp_path / "smiles.csv", ["time", "brow", "other", "smile"], *rows)


def test_a_table_gives_the_intensities_of_its_sampled_rows(table_model, tiny_processor, smiles):
    found = predict_table(smiles, table_model, tiny_processor)
    affect = torch.tensor([[[0, 500], [4, 504], [6, 506]]]).float()  # rows 0, 4, 6; row 2 has a gap
    with torch.no_grad():
        expected = table_model(affect=affect).intensities[0].tolist()
    assert list(found.intensities.values()) == pytest.approx(expected, abs=1e-6)
    assert found.frames.columns.tolist() == [
        "file",
        "track",
        "frame",
        "time_s",
        "face",
        "smile",
        "brow",
    ]
    assert found.frames["frame"].tolist() == [0, 4, 6]
    assert found.frames["time_s"].tolist() == [0, 1.0, 1.5]
    assert found.frames["smile"].tolist() == [0, 4, 6]
    assert found.frames["file"].tolist() == [str(smiles)] * 3
    assert found.error is None
    assert found.summary()["frames_with_face"] == 3
    left_out, short = found.warning.split("; ")
    assert left_out == "1 of 4 frames left out: no face, or a number missing"
    assert short == "rests on 3 frames with a face: too few to rely on"


def test_a_table_without_times_is_predicted_at_the_rate_that_is_given(
    table_model, tiny_processor, tmp_path, capsys
):
    path = write(tmp_path / "a.csv", ["smile", "brow"], *[[n % 3, 500 + n] for n in range(8)])
    found = predict_table(path, table_model, tiny_processor, table_fps=4)
    assert found.frames["time_s"].tolist() == [0, 0.5, 1.0, 1.5]
    assert found.frames["brow"].tolist() == [500, 502, 504, 506]
    assert len(predict_table(path, table_model, tiny_processor).frames) == 8
    table_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    words = ["predict", str(path), "--model", str(tmp_path / "model"), "--table-fps"]
    assert command([*words, "4"]) == 0
    assert "2.0 s, a face in 4 of 4 frames" in capsys.readouterr().out
    assert command([*words, "0"]) == 2
    assert "must be a number above 0" in capsys.readouterr().err
    assert command(["predict", str(path), "--table-fps", "4"]) == 1
    assert "--table-fps is for models that read tables" in capsys.readouterr().err


def test_a_table_without_a_usable_row_gets_no_invented_numbers(
    table_model, tiny_processor, tmp_path
):
    found = predict_table(
        write(tmp_path / "a.csv", ["smile", "brow"], ["", 1]), table_model, tiny_processor
    )
    assert found.error == NO_ROW
    assert all(math.isnan(value) for value in found.intensities.values())
    assert len(found.frames) == 0


def test_videos_tables_photos_and_models_that_do_not_go_together_are_told_apart(
    tiny_model, table_model, tiny_processor, smiles, tmp_path
):
    clip = write_video(tmp_path / "a.mp4", [FACE], 4)
    for path in (clip, smiles):
        with pytest.raises(ValueError, match="this model reads tables of features"):
            predict_video(path, table_model, tiny_processor)
    with pytest.raises(VideoError, match="is a table, and this model reads videos"):
        predict_video(smiles, tiny_model, tiny_processor)
    with pytest.raises(ValueError, match="this model reads videos, not tables"):
        predict_table(smiles, tiny_model, tiny_processor)
    with pytest.raises(
        ValueError,
        match=r"this model reads tables of features \(\.csv, .*\); a video needs another model",
    ):
        predict_table(clip, table_model, tiny_processor)
    with pytest.raises(ValueError, match="a stage-1 model"):
        predict_table(smiles, tiny_model.mma, tiny_processor)
    with pytest.raises(ValueError, match="has no extractor for images"):
        predict_image(FACE, table_model, tiny_processor)
    other = write(tmp_path / "other.csv", ["smile", "frown"], [1, 2])
    with pytest.raises(
        ValueError,
        match=r"other\.csv:1: no column brow in this other table, which has smile, frown",
    ):
        predict_table(other, table_model, tiny_processor)


# The whole path ----------------------------------------------------------------------------------------------------

SAMPLED = [
    [number + frame / 100 for frame in (1, 16, 31, 46) if frame < 40 + number]
    for number in range(8)
]
"""Of each clip with a face the values of the rows at 2 a second."""

SMALL = [
    "--num_frames",
    "4",
    "--hidden_size",
    "8",
    "--dense_size",
    "6",
    "--epochs",
    "3",
    "--learning_rate",
    "0.01",
]


@pytest.fixture
def openface_clips(tmp_path):
    """Eight clips a split, 30 rows a second, whose smile is their joy; one clip without a face, one unlabelled."""
    folder = tmp_path / "clips"
    for split in ("train", "validation"):
        rows = []
        for number in range(9):
            success = int(number != 8)
            more = 0.5 * (split == "validation")  # which the scaling must not see
            frames = range(1, 40 + number)
            values = [
                openface_row(frame, number + frame / 100 + more, success=success)
                for frame in frames
            ]
            openface(folder / split / f"{number}.csv", *values)
            rows.append([f"{number}.csv", number / 8, "" if number == 3 else 1 - number / 8])
        openface(folder / split / "unlabelled.csv", openface_row(1, 1))
        with (folder / split / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(
                [["file_name", "joy", "calm"], *rows, ["unlabelled.csv", "", ""]]
            )
    return folder


def test_tables_become_a_calibrated_model_that_predicts_by_the_command_line(
    openface_clips, tmp_path, capsys
):
    run = tmp_path / "run"
    words = ["--features", "AU*_r", "pose_R*", "--batch_size", "4"]
    assert (
        main(
            [
                "--stage",
                "mrnn",
                "--data",
                f"clips:{openface_clips}",
                "--output",
                str(run),
                *SMALL,
                *words,
            ]
        )
        == 0
    )
    results = json.loads((run / "results.json").read_text("utf-8"))
    assert results["data"] == {
        "data": "a user's own clips, as tables of features (OpenFace)",
        "people_apart": False,
        "train_reaction": 8,
        "validation_reaction": 8,
        "without_usable_rows": 2,
        "unreadable": 0,
        "unlabelled": 2,
    }
    assert (run / "affect").is_dir()  # what was read of the tables, for later runs

    model, _ = load_checkpoint(run / "model")
    assert model.mma is None
    assert model.config.calibrated
    assert model.config.feature_names == ["AU01_r", "AU45_r", "pose_Rx", "pose_Rz"]
    # Clip n has 39 + n rows, of which 1, 16, 31 are due at 2 a second, and row 46 in clip 7 alone.
    values = np.concatenate(SAMPLED)
    # AU01_r, AU45_r, pose_Rx, pose_Rz are the row's value times 6, 7, 4, 5.
    assert model.feature_mean.tolist() == pytest.approx(
        [(values * times).mean() for times in (6, 7, 4, 5)], rel=1e-5
    )
    assert model.feature_scale.tolist() == pytest.approx(
        [DEVIATIONS * (values * times).std() for times in (6, 7, 4, 5)], rel=1e-5
    )

    capsys.readouterr()
    (openface_clips / "validation" / "README.txt").write_text("no clip")
    (openface_clips / "validation" / "metadata.parquet").write_bytes(b"no clip")
    out, frames = tmp_path / "out.csv", tmp_path / "frames.csv"
    words = [str(openface_clips / "validation"), "--model", str(run / "model"), "--out", str(out)]
    assert command(["predict", *words, "--frames", str(frames)]) == 1  # 8.csv shows no face
    shown, said = capsys.readouterr()
    assert f"{openface_clips / 'validation' / '2.csv'}: 1.4 s, a face in 3 of 3 frames" in shown
    assert f"8.csv: {NO_ROW}" in said
    table = pd.read_csv(out)
    assert len(table) == 10  # metadata.csv is none of them
    assert table["joy"].notna().sum() == 9
    assert pd.read_csv(frames).columns[5:].tolist() == model.config.feature_names
    pattern = str(openface_clips / "train" / "[m0]*.csv")  # metadata.csv and 0.csv
    assert command(["predict", pattern, "--model", str(run / "model")]) == 0


def test_an_export_says_which_features_it_reads_and_that_it_holds_no_extractor(
    openface_clips, tmp_path
):
    run = tmp_path / "run"
    words = ["--data", f"clips:{openface_clips}", "--batch_size", "4"]
    assert main(["--stage", "mrnn", "--output", str(run), *SMALL, *words]) == 0
    card = (export_checkpoint(run / "model", tmp_path / "hub") / "README.md").read_text("utf-8")
    assert "pipeline_tag: tabular-regression" in card
    assert "It holds no extractor and reads no video" in card
    assert "`gaze_0_x`, `gaze_0_y`, `gaze_angle_x`, `pose_Rx`" in card
    assert "predict_table(" in card
    assert "accelerate launch train.py --stage mrnn" in card
    for word in ("predict_video", "ResNet", "YuNet", "{{", "{%", "None", "nan"):
        assert word not in card


def test_the_command_line_says_which_model_a_file_needs(
    table_model, tiny_processor, smiles, tmp_path, capsys
):
    table_model.save_pretrained(tmp_path / "model")
    tiny_processor.save_pretrained(tmp_path / "model")
    clip = write_video(tmp_path / "a.mp4", [FACE], 4)
    other = write(tmp_path / "other.csv", ["smile"], [1])
    words = ["predict", str(clip), str(other), str(smiles), "--model", str(tmp_path / "model")]
    assert command(words) == 1
    out, err = capsys.readouterr()
    assert (
        f"{clip}: this model reads tables of features (.csv, .tsv, .txt, .parquet); a video needs another model"
        in err
    )
    assert f"{other}: line 1: no column brow in this other table" in err
    assert f"{smiles}: 2.0 s, a face in 3 of 3 frames" in out
    assert command([*words, "--fps", "4"]) == 1
    assert "--fps is for videos" in capsys.readouterr().err
    assert command(["predict", str(smiles)]) == 1
    assert "is a table, and this model reads videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (
            None,
            ["--mma", "somewhere"],
            "tables of features, which replace an extractor: no --mma",
        ),
        (
            None,
            ["--channels", "expressions"],
            "choose among these by feature_names (--features) and leave channels out",
        ),
        (None, ["--features", "AU99*"], "0.csv:1: no column AU99* in this OpenFace table"),
        ("video", [], "0.csv: a table of features, which"),
        ("other columns", [], "5.csv:1: other features than"),
        ("damaged", [], "5.csv:2: expected 19 values; got 1"),
        ("faceless", [], "no labelled table with a usable row in train"),
    ],
)
def test_a_corpus_of_tables_that_does_not_fit_together_is_refused(
    openface_clips, tmp_path, capsys, change, words, message
):
    train = openface_clips / "train"
    if change == "video":
        text = (train / "metadata.csv").read_text("utf-8")
        (train / "metadata.csv").write_text(text.replace("5.csv", "5.mp4"), "utf-8")
        write_video(train / "5.mp4", [FACE], 4)
    elif change == "other columns":
        (train / "5.csv").write_text((train / "5.csv").read_text().replace("AU45_r", "AU26_r"))
    elif change == "damaged":
        (train / "5.csv").write_text((train / "5.csv").read_text().splitlines()[0] + "\n1\n")
    elif change == "faceless":
        for number in range(9):
            openface(train / f"{number}.csv", openface_row(1, 1, success=0))
    run = [
        "--stage",
        "mrnn",
        "--data",
        f"clips:{openface_clips}",
        "--output",
        str(tmp_path / "run"),
    ]
    assert main([*run, *SMALL, *words]) == 1
    said = capsys.readouterr().err
    assert message in said
    if change == "other columns":
        assert str(train / "0.csv") in said
        assert "AU26_r, AU45_r in one alone" in said
    assert {path.name for path in (tmp_path / "run").glob("*")} <= {
        "affect"
    }  # tables that were read stay read


def test_videos_take_no_features_and_need_an_extractor(tmp_path, capsys):
    for split in ("train", "validation"):
        write(tmp_path / "own" / split / "metadata.csv", ["file_name", "joy"], ["a.mp4", 1])
        (tmp_path / "own" / split / "a.mp4").write_bytes(b"")
    run = [
        "--stage",
        "mrnn",
        "--data",
        f"clips:{tmp_path / 'own'}",
        "--output",
        str(tmp_path / "run"),
    ]
    assert main(run) == 1
    assert "--stage mrnn needs --mma" in capsys.readouterr().err
    assert main([*run, "--mma", "somewhere", "--features", "AU*"]) == 1
    assert "its clips are no tables of features: no --features" in capsys.readouterr().err
    run[run.index("--data") + 1] = "simulated"
    assert main([*run, "--mma", "somewhere", "--features", "AU*"]) == 1
    assert (
        "--features chooses columns of tables; --data simulated has none" in capsys.readouterr().err
    )


def test_a_model_that_reads_tables_is_no_extractor_to_build_on(table_model, tmp_path, capsys):
    table_model.save_pretrained(tmp_path / "model")
    MMAMRNNetVideoProcessor().save_pretrained(tmp_path / "model")
    words = [
        "--stage",
        "mrnn",
        "--data",
        "simulated",
        "--clips",
        "20",
        "4",
        "4",
        "--output",
        str(tmp_path / "run"),
    ]
    assert main([*words, "--mma", str(tmp_path / "model")]) == 1
    assert "a model that reads features holds no extractor" in capsys.readouterr().err


def test_tables_with_the_columns_in_another_order_are_the_same(openface_clips, tmp_path):
    first = openface_clips / "train" / "1.csv"
    pd.read_csv(first).iloc[:, ::-1].to_csv(first, index=False)
    pd.read_csv(first).rename(columns=str.strip).to_csv(first, index=False)
    run = ["--stage", "mrnn", "--data", f"clips:{openface_clips}", "--batch_size", "4", *SMALL]
    assert main([*run, "--output", str(tmp_path / "run")]) == 0
    model, _ = load_checkpoint(tmp_path / "run" / "model")
    assert model.config.feature_names[0] == "gaze_0_x"
    mean = np.concatenate(SAMPLED).mean()
    assert model.feature_mean.tolist() == pytest.approx(
        [mean * times for times in range(1, 10)], rel=1e-5
    )


def test_tables_train_a_network_of_another_pooling_and_length(openface_clips, tmp_path):
    words = [
        "--temporal_pooling",
        "mean",
        "--length_policy",
        "resample",
        "--output",
        str(tmp_path / "run"),
    ]
    assert (
        main(
            [
                "--stage",
                "mrnn",
                "--data",
                f"clips:{openface_clips}",
                "--batch_size",
                "4",
                *SMALL,
                *words,
            ]
        )
        == 0
    )
    model, processor = load_checkpoint(tmp_path / "run" / "model")
    assert (model.config.temporal_pooling, processor.length_policy) == ("mean", "resample")
    assert model.dense.in_features == model.config.hidden_size
    prediction = predict_table(openface_clips / "train" / "1.csv", model, processor)
    assert np.isfinite(list(prediction.intensities.values())).all()


def test_a_feature_that_never_changes_has_scale_1():
    affect = [np.array([[1, 7], [3, 7]], np.float32), np.array([[5, 7]], np.float32)]
    rows = {
        "clip_id": ["a", "b"],
        "subject": ["", ""],
        "kind": ["reaction"] * 2,
        "affect": affect,
        "labels": [[0.5]] * 2,
    }
    model = MMAMRNNetForIntensity(MMAMRNNetConfig(feature_names=["a", "b"]))
    mean, scale = measure_inputs(
        model, ClipDataset.from_rows(datasets.Dataset.from_dict(rows, features=clip_features(1, 2)))
    )
    assert mean.tolist() == [3, 7]
    assert scale.tolist() == pytest.approx([math.sqrt(8 / 3), 1])  # deviations -2, 0, 2
