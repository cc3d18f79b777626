"""A table with one row a frame, as OpenFace, py-feat, MuSe 2022 or our own `predict` write it -> one person's features.

CSV alone is read, by the standard library.
"""

import csv
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mma_mrnnet.files import check_can_write_file, replaced_file
from mma_mrnnet.model.labels import EXPRESSIONS, VALENCE_AROUSAL
from mma_mrnnet.video.reading import FrameClock

if TYPE_CHECKING:
    import pandas as pd

TABLE_SUFFIX = ".csv"
WRITTEN_SUFFIXES = (".csv", ".json", ".parquet")
ROW_COLUMNS = ("file", "track", "frame", "time_s", "face")
"""Columns of every table of frames that we write beside its values: no feature may have such a name."""

_BOOKKEEPING = frozenset({
    "frame", "frame_id", "frame_number", "index", "face_id", "person", "person_id", "subject", "input", "file_name",
    "timestamp", "time", "approx_time", "confidence", "success",
}) | frozenset(ROW_COLUMNS)  # fmt: skip
_BOX = ("FaceRectWidth", "FaceRectHeight")
_MISSING = frozenset({"", "nan", "na", "n/a", "null", "none"})
_DENSER = (
    1.1  # times the wanted rate, by the median step: from here on rows are sampled (our choice)
)
_MILLISECONDS = (
    10.0  # no table has a row every ten seconds: such steps are milliseconds (our choice)
)


@dataclass(frozen=True)
class _Kind:
    """A format of tables, known by its header.

    Attributes:
        name: for messages and results.
        marks: columns that only this format has together.
        features: patterns of the columns that are features where the user names none.
        time: columns that may hold the time, the first that is there counts.
        face: the column that says whether the row has a face.
        person: the column that tells persons apart.
        clip: the column that names the clip; a table may hold one clip only.
        frame: columns that together number the frame.
        in_seconds: the time is in seconds for certain.
    """

    name: str
    marks: frozenset[str]
    features: tuple[str, ...]
    time: tuple[str, ...] = ()
    face: str = ""
    person: str = ""
    clip: str = ""
    frame: tuple[str, ...] = ("frame",)
    in_seconds: bool = False

    @property
    def special(self) -> tuple[str, ...]:
        """Columns that are never features."""
        return (*ROW_COLUMNS, *self.time, self.face, self.person, self.clip, *self.frame)


_OTHER = _Kind("other", frozenset(), (), ("time_s", "timestamp", "time"), person="face_id")
_KINDS = (
    _Kind(
        "mma-mrnnet",
        frozenset({*ROW_COLUMNS, *VALENCE_AROUSAL}),
        (*VALENCE_AROUSAL, *EXPRESSIONS, "AU[0-9][0-9]"),
        ("time_s",),
        face="face",
        person="track",
        clip="file",
        in_seconds=True,
    ),
    _Kind("MuSe", frozenset({"File_ID", "timestamp"}), ("*",), ("timestamp",), clip="File_ID"),
    _Kind(
        "OpenFace",
        frozenset({"timestamp", "confidence", "success"}),
        ("gaze_*", "pose_R*", "AU*_r", "AU*_c"),
        ("timestamp",),
        face="success",
        person="face_id",
        in_seconds=True,
    ),
    # The names of emotions in lower case are those of py-feat's first generation, the capitals its second's.
    _Kind(
        "py-feat",
        frozenset({"FaceRectX", "FaceRectY", *_BOX}),
        (
            *(
                "AU[0-9][0-9]",
                "anger",
                "disgust",
                "fear",
                "happiness",
                "sadness",
                "surprise",
                "neutral",
            ),
            *("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger", *VALENCE_AROUSAL),
            *("Pitch", "Roll", "Yaw"),
        ),
        person="Identity",
        frame=("input", "frame"),
    ),
    _OTHER,
)


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """The used rows of a table: of one person, at the wanted rate, each with a number in every column.

    Attributes:
        kind: `mma-mrnnet`, `MuSe`, `OpenFace`, `py-feat` or `other`.
        names: the F columns that were taken.
        values: (L, F) float32, in time order; L may be 0.
        times_s: (L,) float64, seconds since the table's first row; None where it has no time stamps.
        frames: (L,) int64, each row's frame, counted from 0 over all frames of the table.
        frames_sampled: frames of the table at the wanted rate, used or not.
        duration_s: time from the first frame to the end of the last; NaN without time stamps.
    """

    kind: str
    names: tuple[str, ...]
    values: np.ndarray = field(repr=False)
    times_s: np.ndarray | None = field(repr=False)
    frames: np.ndarray = field(repr=False)
    frames_sampled: int
    duration_s: float


def read_feature_table(
    path: str | os.PathLike[str], patterns: Sequence[str] | None = None, fps: float | None = None
) -> FeatureTable:
    """The features of one person in a table of frames.

    The kind of the table is known by its header. Rows without a face and rows where a used column has no finite number
    are left out. Of several persons the one with most usable rows is kept, the lowest id of equals; of several rows
    that py-feat wrote for a frame the one with the largest box.

    A table with time stamps that is denser than `fps` by more than a tenth is sampled by the rule of
    `data.video.read_frames`: the first frame at or after each k / fps, counted from the table's first frame; what is
    unusable then is left out, not replaced. Other tables are taken row by row. Time stamps that never change are none;
    but for OpenFace and our own tables, whose unit is known, steps of 10 or more are milliseconds.

    Args:
        path: a CSV file in UTF-8 with a header.
        patterns: shell-style patterns of the columns to take (`AU*_r`), in the order of the patterns; None takes the
            kind's own: OpenFace gaze, head rotation and action units; py-feat action units, emotions and head
            rotation; MuSe everything; ours valence, arousal, expressions and action units; of any other table each
            column of numbers that is no bookkeeping.
        fps: frames a second; None takes every frame.

    Raises:
        ValueError: no such file, not a table, a column that is missing or holds text, several clips in one table, or
            several rows of one frame; the message starts with the file, and the line where there is one.
    """
    content = _read_content(Path(path), patterns)
    times = _times_of(content)
    frame_of_row, frame_times = _frames_of(content, times)
    due = _due(frame_times, len(frame_of_row) and int(frame_of_row.max()) + 1, fps)
    usable = content.faces() & np.isfinite(content.numbers).all(1)
    usable &= _of_one_person(content, usable)
    if set(_BOX) <= content.cells.keys():
        usable &= _largest_of_frame(content, usable, frame_of_row)
    rows = np.flatnonzero(usable & due[frame_of_row])
    _check_one_row_a_frame(content, frame_of_row, rows)
    return FeatureTable(
        kind=content.kind.name,
        names=content.names,
        values=content.numbers[rows],
        times_s=None if times is None else times[rows],
        frames=frame_of_row[rows],
        frames_sampled=int(due.sum()),
        duration_s=math.nan
        if frame_times is None
        else float(frame_times[-1] + _median_step(frame_times)),
    )


def exactly(names: Iterable[str]) -> list[str]:
    """Patterns that match these names and nothing else."""
    return [escape(name) for name in names]


# The file ----------------------------------------------------------------------------------------------------------


@dataclass
class _Content:
    """What is needed of a file's rows.

    Attributes:
        path: of the file.
        kind: of the table.
        names: the F columns that are taken.
        numbers: (N, F) float32 of all rows, NaN where there is no number.
        lines: (N,) where the rows stand.
        cells: text of the columns that are no features, by name.
    """

    path: Path
    kind: _Kind
    names: tuple[str, ...]
    numbers: np.ndarray
    lines: list[int]
    cells: dict[str, list[str]]

    def numbers_of(self, column: str) -> np.ndarray:
        """(N,) float64 of a column that must hold a number in every row."""
        values = [_number(cell) for cell in self.cells[column]]
        for line, cell, value in zip(self.lines, self.cells[column], values, strict=True):
            if value is None or not math.isfinite(value):
                raise ValueError(f"{self.path}:{line}: {column} must be a number; got {cell!r}")
        return np.array(values, np.float64)

    def faces(self) -> np.ndarray:
        """(N,) bool, whether the row has a face; True where the table does not say."""
        column = self.cells.get(self.kind.face)
        if column is None:
            return np.ones(len(self.lines), bool)
        said = {
            "true": True,
            "1": True,
            "1.0": True,
            "false": False,
            "0": False,
            "0.0": False,
            "": False,
        }
        for line, cell in zip(self.lines, column, strict=True):
            if cell.lower() not in said:
                raise ValueError(
                    f"{self.path}:{line}: {self.kind.face} must be 0, 1, True or False; got {cell!r}"
                )
        return np.array([said[cell.lower()] for cell in column], bool)


def _read_content(path: Path, patterns: Sequence[str] | None) -> _Content:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            kind = next(kind for kind in _KINDS if kind.marks <= set(header))
            names, optional = _chosen_columns(path, header, kind, patterns)
            places = [header.index(name) for name in names]
            special = {
                name: header.index(name)
                for name in {*kind.special, *_BOX}
                if name and name in header
            }
            cells: dict[str, list[str]] = {name: [] for name in special}
            numbers, lines, texts = [], [], set()
            for row in reader:
                if not any(cell.strip() for cell in row):
                    continue
                place = f"{path}:{reader.line_num}"
                if len(row) != len(header):
                    raise ValueError(
                        f"{place}: {len(row)} cells where the header has {len(header)}"
                    )
                numbers.append(_numbers(row, places, names, place, texts if optional else None))
                lines.append(reader.line_num)
                for name, number in special.items():
                    cells[name].append(row[number].strip())
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a table in UTF-8: {error}") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    with np.errstate(
        over="ignore"
    ):  # a number beyond float32 becomes infinite, which counts as missing
        values = np.array(numbers, np.float64).reshape(len(lines), len(names)).astype(np.float32)
    kept = [number for number, name in enumerate(names) if name not in texts]
    if not kept:
        raise ValueError(f"{path}:1: no column of numbers beside {', '.join(header[:8])}")
    return _Content(
        path, kind, tuple(names[number] for number in kept), values[:, kept], lines, cells
    )


def _check_header(path: Path, header: list[str]) -> None:
    named = [name for name in header if name]
    twice = sorted(name for name, count in Counter(named).items() if count > 1)
    if twice:
        raise ValueError(
            f"{path}:1: every column needs a name of its own; {', '.join(twice)} is there more often"
        )
    if all(_number(name) is not None for name in named):
        raise ValueError(
            f"{path}:1: a header with the columns' names is needed; got {', '.join(header[:8])!r}"
        )


def _chosen_columns(
    path: Path, header: list[str], kind: _Kind, patterns: Sequence[str] | None
) -> tuple[list[str], bool]:
    """The columns that are taken, and whether those that hold text are to be passed over (any other kind's own)."""
    special = kind.special
    free = [name for name in header if name and name not in special]
    if patterns is None and kind is _OTHER:
        return [name for name in free if name.lower() not in _BOOKKEEPING], True
    wanted = kind.features if patterns is None else patterns
    found = {pattern: [name for name in free if fnmatchcase(name, pattern)] for pattern in wanted}
    missing = [pattern for pattern, names in found.items() if not names]
    if missing and (patterns is not None or len(missing) == len(found)):
        raise ValueError(
            f"{path}:1: no column {', '.join(missing)} in this {kind.name} table, which has {', '.join(free[:60])}"
        )
    return list(dict.fromkeys(name for names in found.values() for name in names)), False


def _numbers(
    row: list[str], places: list[int], names: list[str], place: str, texts: set[str] | None
) -> list[float]:
    """The chosen cells; the names of columns with text are added to `texts`, or refused where that is None."""
    try:
        return [float(row[number]) for number in places]
    except ValueError:  # an empty cell, or text: cell by cell
        pass
    values = []
    for name, number in zip(names, places, strict=True):
        value = _number(row[number])
        if value is None:
            if texts is None:
                raise ValueError(f"{place}: {name} must be a number, or empty; got {row[number]!r}")
            texts.add(name)
        values.append(math.nan if value is None else value)
    return values


def _number(cell: str) -> float | None:
    """The number; NaN for a cell that says there is none, None for text."""
    if cell.strip().lower() in _MISSING:
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return None


# Its rows ----------------------------------------------------------------------------------------------------------


def _times_of(content: _Content) -> np.ndarray | None:
    """(N,) seconds since the first row; None without time stamps."""
    if content.kind.clip in content.cells:
        clips = content.cells[content.kind.clip]
        for line, clip in zip(content.lines, clips, strict=True):
            if clip != clips[0]:
                raise ValueError(
                    f"{content.path}:{line}: {clip!r} beside {clips[0]!r}: a table must hold one clip"
                )
    column = next((name for name in content.kind.time if name in content.cells), None)
    if column is None or not content.lines:
        return None
    times = content.numbers_of(column)
    times -= times.min()
    if len(times) > 1 and times.max() == 0.0:
        return None
    if (
        not content.kind.in_seconds
        and column != "time_s"
        and _median_step(np.unique(times)) >= _MILLISECONDS
    ):
        times /= 1000.0
    return times


def _median_step(frame_times: np.ndarray) -> float:
    return float(np.median(np.diff(frame_times))) if len(frame_times) > 1 else 0.0


def _frames_of(content: _Content, times: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """(N,) the frame of each row, and (M,) the time of each frame where there are times."""
    if times is not None:
        frame_times, frame_of_row = np.unique(times, return_inverse=True)
        return frame_of_row.astype(np.int64), frame_times
    columns = [content.cells[name] for name in content.kind.frame if name in content.cells]
    if not columns:
        return np.arange(len(content.lines)), None
    numbers: dict[tuple[str, ...], int] = {}
    keys = zip(*columns, strict=True)
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64), None


def _due(frame_times: np.ndarray | None, frames: int, fps: float | None) -> np.ndarray:
    """(M,) bool, the frames that are taken at the rate."""
    if frame_times is None or fps is None or _median_step(frame_times) * fps * _DENSER >= 1:
        return np.ones(frames, bool)
    clock = FrameClock(fps)
    return np.array([clock.keeps(float(time_s)) for time_s in frame_times], bool)


def _of_one_person(content: _Content, usable: np.ndarray) -> np.ndarray:
    """(N,) bool, the rows of the person with most usable rows."""
    persons = content.cells.get(content.kind.person)
    if persons is None or not usable.any():
        return np.ones(len(usable), bool)
    counts = Counter(person for person, counts in zip(persons, usable, strict=True) if counts)

    def rank(person: str) -> tuple[int, float, str]:
        number = _number(person)
        return -counts[person], math.inf if number is None or math.isnan(number) else number, person

    chosen = min(counts, key=rank)
    return np.array([person == chosen for person in persons], bool)


def _largest_of_frame(
    content: _Content, usable: np.ndarray, frame_of_row: np.ndarray
) -> np.ndarray:
    """(N,) bool, of each frame the usable row with the largest box, the first of equals."""
    width, height = (
        np.array([_number(cell) or 0.0 for cell in content.cells[side]]) for side in _BOX
    )
    area = np.nan_to_num(width * height)
    largest: dict[int, int] = {}
    for row in np.flatnonzero(usable).tolist():
        best = largest.setdefault(int(frame_of_row[row]), row)
        if area[row] > area[best]:
            largest[int(frame_of_row[row])] = row
    chosen = np.zeros(len(usable), bool)
    chosen[list(largest.values())] = True
    return chosen


def _check_one_row_a_frame(content: _Content, frame_of_row: np.ndarray, rows: np.ndarray) -> None:
    wrong = np.flatnonzero(np.diff(frame_of_row[rows]) <= 0)
    if len(wrong):
        before, row = rows[wrong[0]], rows[wrong[0] + 1]
        raise ValueError(
            f"{content.path}:{content.lines[row]}: not a later frame than line {content.lines[before]}: one row a "
            "frame is needed, in time order (persons are told apart by face_id, track or Identity)"
        )


# ---- writing ------------------------------------------------------------------------------------


def write_table(table: "pd.DataFrame", path: str | os.PathLike[str]) -> None:
    """Write a table as .csv, .json or .parquet, atomically.

    JSON is strict: NaN is written as null.

    Raises:
        ValueError: another suffix, a directory that does not exist, or a path that is a directory.
    """
    path = Path(path)
    check_table_path(path)
    with replaced_file(path) as staging:
        if path.suffix.lower() == ".csv":
            table.to_csv(staging, index=False)
        elif path.suffix.lower() == ".json":
            table.to_json(staging, orient="records", indent=1, double_precision=6)
        else:
            table.to_parquet(staging, index=False)


def check_table_path(path: Path) -> None:
    """Check that `write_table` can write to `path`, before any work is spent on the table.

    Raises:
        ValueError: another suffix, a directory that does not exist, or a path that is a directory.
    """
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        got = path.suffix or "no ending"
        raise ValueError(f"{path}: a table is written as .csv, .json or .parquet; got {got!r}")
    check_can_write_file(path)
