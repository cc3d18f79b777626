"""Tables with one row per frame, from OpenFace, py-feat, MuSe 2022 or our `predict`."""

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

import numpy as np
import pandas as pd

from mma_mrnnet.model.labels import EXPRESSIONS, VALENCE_AROUSAL
from mma_mrnnet.tables.cells import (
    TextTable,
    is_all_numbers,
    parse_number,
    parse_numbers,
    read_text_table,
)
from mma_mrnnet.video.reading import FrameClock

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
ROW_COLUMNS = ("file", "track", "frame", "time_s", "face")
"""Columns of our tables of frames that are not values: reserved names."""
INTERPOLATED = "interpolated"
"""A further such column, of tables of videos: whether the face lies between those of two frames."""

_BOX = ("FaceRectWidth", "FaceRectHeight")
_DENSER = 1.1
"""A table is sampled if it is denser than the wanted rate by this factor (our choice)."""


@dataclass(frozen=True)
class _Kind:
    """A format of tables, recognised by its header.

    Attributes:
        marks: columns that together identify the format.
        features: patterns of the default feature columns.
        time: columns that may hold the time; the first one present is used.
        face: column that says whether the row has a face.
        person: column that identifies people.
        clip: column that names the clip; a table may hold only one.
        frame: columns that together number the frame.
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
        return (
            *ROW_COLUMNS,
            INTERPOLATED,
            *self.time,
            self.face,
            self.person,
            self.clip,
            *self.frame,
        )


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
    # py-feat's first generation writes emotions in lower case, its second with a capital.
    _Kind(
        "py-feat",
        frozenset({"FaceRectX", "FaceRectY", *_BOX}),
        (
            "AU[0-9][0-9]",
            *("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"),
            *("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger", *VALENCE_AROUSAL),
            *("Pitch", "Roll", "Yaw"),
        ),
        person="Identity",
        frame=("input", "frame"),
    ),
    _OTHER,
)


# ---- what columns are by their names ------------------------------------------------------------

_BOOKKEEPING = frozenset(
    {"subject", "input", "file_name", "confidence", "success", "row", "sample", "person"}
) | frozenset(ROW_COLUMNS)
_COUNTERS = frozenset(
    {"frame", "frames", "index", "idx", "id", "ids", "uid", "uuid", "unnamed", "date", "datetime"}
)
_CLOCKS = frozenset({"time", "times", "timestamp", "timestamps", "timecode"})
_COUNTER_NAMES = re.compile(
    r"(frame|row|sample|face|person|track|subject|participant|respondent|clip|video|file|segment"
    r"|record|trial|session)(id|ids|no|nr|num|nbr|number|idx|index|count|counter)"
)
_CLOCK_NAMES = re.compile(r"\w*(timestamp|timecode|mediatime|frametime|videotime|approxtime)\w*")
_UNITS = {
    1.0: {"s", "sec", "secs", "second", "seconds"},
    1e3: {"ms", "msec", "msecs", "millis", "millisecond", "milliseconds"},
    1e6: {"us", "usec", "micros", "microsecond", "microseconds"},
    1e9: {"ns", "nsec", "nanos", "nanosecond", "nanoseconds"},
}
"""Names of time units, by units per second."""


def _words_of(name: str) -> set[str]:
    """Split `frame_idx`, `FrameIdx` or `Frame Idx` into lower-case words."""
    return set(map(str.lower, re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)))


def _names_time(name: str) -> bool:
    squashed = re.sub(r"\W|_", "", name).lower()
    return bool(_words_of(name) & _CLOCKS) or _CLOCK_NAMES.fullmatch(squashed) is not None


def _is_bookkeeping(name: str) -> bool:
    """Return whether a column's name says that it numbers, times or names rows."""
    squashed = re.sub(r"\W|_", "", name).lower()
    return (
        name.lower() in _BOOKKEEPING
        or _names_time(name)
        or bool(_words_of(name) & _COUNTERS)
        or _COUNTER_NAMES.fullmatch(squashed) is not None
    )


def is_measure(name: str) -> bool:
    """Return whether a name means an action unit, expression, gaze or head rotation.

    Such a column is a feature, whatever its values are.
    """
    known = {*EXPRESSIONS, *VALENCE_AROUSAL, "pitch", "roll", "yaw", "happy", "sad"}
    return bool(re.fullmatch(r"(?i)au_?\d+.*|(gaze|pose)_.*", name)) or name.lower() in known


# ---- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """The usable rows of one person at the wanted rate, complete in every column.

    Attributes:
        kind: `mma-mrnnet`, `MuSe`, `OpenFace`, `py-feat` or `other`.
        names: the F feature columns.
        values: (L, F) float32, in time order; L may be 0.
        times_s: (L,) float64, seconds since the table's first row; None without times.
        frames: (L,) int64, frame index, from 0, over all frames of the table.
        frames_sampled: frames of the table at the wanted rate, usable or not.
        duration_s: start of the first frame to end of the last; NaN without times.
        empty: feature columns that were dropped, since they hold no number.
        chosen: `names` and `empty` in table order.
    """

    kind: str
    names: tuple[str, ...]
    values: np.ndarray = field(repr=False)
    times_s: np.ndarray | None = field(repr=False)
    frames: np.ndarray = field(repr=False)
    frames_sampled: int
    duration_s: float
    empty: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    warning: str | None = None
    chosen: tuple[str, ...] = ()


def is_table(path: str | os.PathLike[str]) -> bool:
    """Return whether a file's suffix is that of a table."""
    return Path(path).suffix.lower() in TABLE_SUFFIXES


def read_feature_table(
    path: str | os.PathLike[str],
    patterns: Sequence[str] | None = None,
    fps: float | None = None,
    table_fps: float | None = None,
) -> FeatureTable:
    """Read the features of one person from a table of frames.

    Rows without a face, or with a missing or infinite number in a used column, are dropped. Of
    several people, the one with most usable rows is kept (ties: lowest id). Of several py-feat
    rows of one frame, the largest box is kept.

    If the table is more than 10 % denser than `fps`, it is sampled as in `video.read_frames`: the
    first frame at or after each k / fps, counted from the first frame. Unusable frames are
    dropped, not replaced.

    The unit of time comes from the column's name or the kind of table. Otherwise, steps of 10 or
    more are milliseconds, and of 10,000 or more microseconds. Constant times are ignored.

    Args:
        path: .csv, .tsv or .txt in UTF-8 or UTF-16, or .parquet, with a header; lines above it are
            skipped.
        patterns: shell-style patterns of the columns to take (`AU*_r`), in this order. Columns
            without numbers are dropped unless a pattern is their exact name. Default for OpenFace:
            gaze, head rotation and action units; py-feat: action units, emotions and head
            rotation; MuSe: all; our tables: valence, arousal, expressions and action units;
            other tables: all numeric columns that do not number or time the rows.
        fps: frames per second; None takes every frame.
        table_fps: frames per second of a table without times.

    Raises:
        ValueError: a missing file, no table, a missing column or one with text, several clips,
            or several rows per frame; the message starts with file and line.
    """
    content = _read_content(Path(path), patterns)
    _check_one_clip(content)
    numbers = _frame_numbers(content)
    times = _read_times(content, numbers)
    warning = None
    if times is None and table_fps is not None:
        first = numbers.min() if len(numbers) else 0
        times = (numbers - first) / table_fps
    elif times is not None and 0 < _median_step(np.unique(times)) <= 0.0011:
        warning = (
            "its time stamps are 1 ms apart, as for 1000 frames a second: they are probably wrong"
        )
    frame_times = None
    frame_of_row = _dense(numbers)
    if times is not None:
        frame_times, frame_of_row = np.unique(times, return_inverse=True)
    due = _due_frames(frame_times, int(frame_of_row.max(initial=-1)) + 1, fps)
    usable = content.read_faces() & np.isfinite(content.numbers).all(1)
    usable &= _rows_of_one_person(content, usable)
    if set(_BOX) <= content.cells.keys():
        usable &= _largest_of_frame(content, usable, frame_of_row)
    rows = np.flatnonzero(usable & due[frame_of_row])
    _check_one_row_a_frame(content, frame_of_row, rows)
    duration_s = math.nan
    if frame_times is not None:
        duration_s = float(frame_times[-1] + _median_step(frame_times))
    return FeatureTable(
        kind=content.kind.name,
        names=content.names,
        values=content.numbers[rows],
        times_s=None if times is None else times[rows],
        frames=frame_of_row[rows],
        frames_sampled=int(due.sum()),
        duration_s=duration_s,
        empty=content.empty,
        ignored=content.ignored,
        warning=warning,
        chosen=content.chosen,
    )


def exactly(names: Iterable[str]) -> list[str]:
    """Return patterns that match only these names."""
    return [escape(name) for name in names]


# ---- the file -----------------------------------------------------------------------------------


@dataclass
class _Content:
    """The content of a file that is needed.

    `numbers` are (N, F) float32 of the feature columns, NaN where missing; `cells` the text of
    other columns by name. `empty` columns without numbers were not asked for by name.
    """

    path: Path
    kind: _Kind
    names: tuple[str, ...]
    numbers: np.ndarray
    lines: Sequence[int | str]
    cells: dict[str, list[str]]
    empty: tuple[str, ...]
    ignored: tuple[str, ...]
    chosen: tuple[str, ...]

    def read_numbers(self, column: str) -> np.ndarray:
        """Return (N,) float64 of a column without missing numbers."""
        values, _ = parse_numbers(self.cells[column])
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            row = int(wrong[0])
            cell = self.cells[column][row]
            raise ValueError(
                f"{self.path}:{self.lines[row]}: {column} must be a number; got {cell!r}"
            )
        return values

    def read_faces(self) -> np.ndarray:
        """Return (N,) bool, whether the row has a face; True if the table has no such column."""
        column = self.cells.get(self.kind.face)
        if column is None:
            return np.ones(len(self.lines), bool)
        said = {"true": True, "1": True, "1.0": True, "": False}
        said |= {"false": False, "0": False, "0.0": False}
        for line, cell in zip(self.lines, column, strict=True):
            if cell.lower() not in said:
                raise ValueError(
                    f"{self.path}:{line}: {self.kind.face} must be 0, 1, True or False; "
                    f"got {cell!r}"
                )
        return np.array([said[cell.lower()] for cell in column], bool)


def _read_content(path: Path, patterns: Sequence[str] | None) -> _Content:
    table = read_text_table(path)
    header = table.header
    _check_header(table)
    kind = next(kind for kind in _KINDS if kind.marks <= set(header))
    columns: dict[str, list[str]] = {name: [] for name in header if name}
    for place, name in enumerate(header):
        if name:
            columns[name] = [row[place] for row in table.rows]
    chosen = _choose_columns(table, kind, patterns)
    skips_text = patterns is None and kind is _OTHER
    named = set(patterns or ())  # exact names, no patterns
    numbers: dict[str, np.ndarray] = {}
    empty = []
    for name in chosen:
        values, text = parse_numbers(columns[name])
        if text is not None and not skips_text:
            raise ValueError(
                f"{path}:{table.lines[text]}: {name} must be a number, or empty; "
                f"got {columns[name][text]!r}"
            )
        if text is not None:
            continue
        if escape(name) not in named and len(values) and np.isnan(values).all():
            empty.append(name)
            continue
        numbers[name] = values
    if not numbers:
        raise ValueError(f"{path}:1: no column of numbers beside {', '.join(header[:8])}")
    with np.errstate(over="ignore"):  # overflow becomes infinite, that is, missing
        matrix = np.stack([*numbers.values()], 1).astype(np.float32)
    special = {*kind.special, *_BOX, *filter(_names_time, header)} - set(numbers)
    return _Content(
        path,
        kind,
        tuple(numbers),
        matrix,
        table.lines,
        {name: cells for name, cells in columns.items() if name in special},
        tuple(empty),
        tuple(name for name in columns if name not in numbers and name not in empty),
        tuple(name for name in chosen if name in numbers or name in empty),
    )


def _check_header(table: TextTable) -> None:
    named = [name for name in table.header if name]
    place = f"{table.path}:{table.header_line}"
    twice = sorted(name for name, count in Counter(named).items() if count > 1)
    if twice:
        raise ValueError(
            f"{place}: every column needs a name of its own; {', '.join(twice)} is there more often"
        )
    if is_all_numbers(named):
        raise ValueError(
            f"{place}: a header with the columns' names is needed; got {', '.join(named[:8])!r}"
        )


def _choose_columns(table: TextTable, kind: _Kind, patterns: Sequence[str] | None) -> list[str]:
    special = kind.special
    free = [name for name in table.header if name and name not in special]
    if patterns is None and (kind is _OTHER or kind.features == ("*",)):
        return [name for name in free if not _is_bookkeeping(name)]
    wanted = kind.features if patterns is None else patterns
    found = {pattern: [name for name in free if fnmatchcase(name, pattern)] for pattern in wanted}
    missing = [pattern for pattern, names in found.items() if not names]
    if missing and (patterns is not None or len(missing) == len(found)):
        raise ValueError(
            f"{table.path}:{table.header_line}: no column {', '.join(missing)} in this {kind.name} "
            f"table, which has {', '.join(free[:60])}"
        )
    return list(dict.fromkeys(name for names in found.values() for name in names))


# ---- its rows -----------------------------------------------------------------------------------


def _read_times(content: _Content, numbers: np.ndarray) -> np.ndarray | None:
    """Return (N,) seconds since the first row; None without times."""
    kind = content.kind
    if not content.lines:
        return None
    column = next((name for name in kind.time if name in content.cells), None)
    if column is not None:
        per_second = 1.0 if kind.in_seconds or column == "time_s" else None
        codes = _parse_clock(content.cells[column])
        times = codes if codes is not None else content.read_numbers(column)
        return _as_seconds(times, column, 1.0 if codes is not None else per_second)
    others = [] if kind.in_seconds else filter(_names_time, content.cells)
    for name in others:  # less usual names of time columns
        codes = _parse_clock(content.cells[name])
        times = codes if codes is not None else parse_numbers(content.cells[name])[0]
        if not np.isfinite(times).all() or (np.diff(_first_of_frames(times, numbers)) < 0).any():
            continue
        found = _as_seconds(times, name, None if codes is None else 1.0)
        if found is None:
            continue
        one_row_a_frame = kind.person not in content.cells
        has_frames = any(frame in content.cells for frame in kind.frame)
        return _spread_coarse(found, numbers) if one_row_a_frame or has_frames else found
    return None


def _parse_clock(cells: list[str]) -> np.ndarray | None:
    """Return (N,) seconds from time codes or dates; None if there are none."""
    if parse_numbers(cells)[1] is None:
        return None
    codes = _parse_time_codes(cells)
    return codes if np.isfinite(codes).all() else None


def _check_one_clip(content: _Content) -> None:
    clips = content.cells.get(content.kind.clip, [])
    for line, clip in zip(content.lines, clips, strict=False):
        if clip != clips[0]:
            raise ValueError(
                f"{content.path}:{line}: {clip!r} beside {clips[0]!r}: a table must hold one clip"
            )


def _as_seconds(times: np.ndarray, column: str, per_second: float | None) -> np.ndarray | None:
    times = times - times.min()
    if len(times) > 1 and times.max() == 0.0:
        return None
    if per_second is None:
        words = _words_of(column)
        named = [per_second for per_second, units in _UNITS.items() if words & units]
        step = _median_step(np.unique(times))
        # Steps of ten or more are no seconds, but smaller units (our choice).
        guessed = 1e9 if step >= 1e7 else 1e6 if step >= 1e4 else 1e3 if step >= 10 else 1.0
        per_second = named[0] if named else guessed
    return times / per_second


def _parse_time_codes(cells: list[str]) -> np.ndarray:
    """Parse `MM:SS`, `HH:MM:SS.sss`, `HH:MM:SS:FF.ff` (FF: frames) or dates; NaN for others.

    The frame rate is the lowest usual one above the highest FF in the column.
    """
    parts = [re.split(r"[:;]", cell) for cell in cells]
    try:
        values = [[float(part) for part in cell] for cell in parts]
    except ValueError:
        dates = pd.to_datetime(pd.Series(cells), errors="coerce", format="ISO8601")
        seconds = (dates - dates.min()).dt.total_seconds()
        return seconds.to_numpy(np.float64)
    if len(set(map(len, values))) != 1 or len(values[0]) not in (2, 3, 4):
        return np.full(len(cells), math.nan)
    codes = np.array(values)
    frames = np.zeros(len(codes))
    if codes.shape[1] == 4:
        usual = (24, 25, 30, 50, 60, 100, 120, 240)
        rate = next((rate for rate in usual if rate > codes[:, 3].max()), 1000)
        frames, codes = codes[:, 3] / rate, codes[:, :3]
    return codes @ 60.0 ** np.arange(codes.shape[1])[::-1] + frames


def _frame_numbers(content: _Content) -> np.ndarray:
    """Return (N,) frame of each row, from the frame columns or counted."""
    columns = [content.cells[name] for name in content.kind.frame if name in content.cells]
    if not columns:
        return np.arange(len(content.lines))
    values, text = parse_numbers(columns[-1])
    one_input = len(columns) == 1 or len(set(columns[0])) == 1
    if one_input and text is None and np.isfinite(values).all():
        return values
    counted: dict[tuple[str, ...], int] = {}
    keys = zip(*columns, strict=True)
    return np.array([counted.setdefault(key, len(counted)) for key in keys], np.int64)


def _dense(numbers: np.ndarray) -> np.ndarray:
    """Return (N,) int64: frames renumbered from 0 in order of appearance."""
    _, first, place = np.unique(numbers, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[place].astype(np.int64)


def _first_of_frames(times: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    return times[np.unique(numbers, return_index=True)[1]]


def _spread_coarse(times: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Spread times that several frames share, such as whole seconds, evenly over them."""
    frames = np.unique(numbers)
    of_frames = _first_of_frames(times, numbers)
    values, changes = np.unique(of_frames, return_index=True)
    if len(values) >= 0.5 * len(frames) or len(values) < 3:
        return times
    # Where the time changes; the first value may have begun before the table.
    slope = np.polyfit(frames[changes[1:]], values[1:], 1)[0]
    return (numbers - frames[0]) * slope


def _median_step(frame_times: np.ndarray) -> float:
    return float(np.median(np.diff(frame_times))) if len(frame_times) > 1 else 0.0


def _due_frames(frame_times: np.ndarray | None, frames: int, fps: float | None) -> np.ndarray:
    """Return (M,) bool, the frames to take at this rate."""
    if frame_times is None or fps is None or _median_step(frame_times) * fps * _DENSER >= 1:
        return np.ones(frames, bool)
    clock = FrameClock(fps)
    return np.array([clock.keeps(float(time_s)) for time_s in frame_times], bool)


def _rows_of_one_person(content: _Content, usable: np.ndarray) -> np.ndarray:
    """Return (N,) bool, the rows of the person with most usable rows."""
    persons = content.cells.get(content.kind.person)
    if persons is None or not usable.any():
        return np.ones(len(usable), bool)
    counts = Counter(person for person, counts in zip(persons, usable, strict=True) if counts)

    def rank(person: str) -> tuple[int, float, str]:
        number = parse_number(person)
        if number is None or math.isnan(number):
            number = math.inf
        return -counts[person], number, person

    chosen = min(counts, key=rank)
    return np.array([person == chosen for person in persons], bool)


def _largest_of_frame(
    content: _Content, usable: np.ndarray, frame_of_row: np.ndarray
) -> np.ndarray:
    """Return (N,) bool, per frame the usable row with the largest box (ties: the first)."""
    width, height = (parse_numbers(content.cells[side])[0] for side in _BOX)
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
            f"{content.path}:{content.lines[row]}: not a later frame than line "
            f"{content.lines[before]}: one row a frame is needed, in time order (people are told "
            "apart by face_id, track or Identity)"
        )
