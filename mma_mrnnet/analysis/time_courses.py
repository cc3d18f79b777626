"""Clips with reference time courses of action units: read them, and score outputs over time."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from mma_mrnnet.analysis.copies import DARK, MIRRORED, Extractor
from mma_mrnnet.faces.affect import extract_people
from mma_mrnnet.faces.detection import FaceDetector
from mma_mrnnet.faces.tracks import crop_faces, rank_people
from mma_mrnnet.metrics import People, count_constant_as_zero, pearson_scores
from mma_mrnnet.model.labels import action_unit_name
from mma_mrnnet.results import CourseScores, ScoreInterval, TimeCourseScores
from mma_mrnnet.tables.cells import TextTable, parse_numbers, read_text_table
from mma_mrnnet.video.reading import read_frames

PREFIX = "reference_clips:"
"""Start of `--data` for a folder of clips with reference time courses."""

TABLES = (".csv", ".tsv", ".parquet")
TIME_COLUMNS = ("time_s", "time", "timestamp")
FILE_COLUMNS = ("file_name", "file")
UNIT_COLUMN = re.compile(r"au_?(\d{1,2})(_r)?", re.IGNORECASE)

VARIES = 0.05  # deviation of a reference that varies
STILL = 0.01  # mean change of the reference between still neighbours
LEAST_PAIRS = 10  # still neighbours of a clip with a jitter
FARTHEST_S = 0.5  # largest lag
MEANS = ("as_is", "mirrored", "averaged", "dark", "at_lag")

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """The reference of one clip: (L,) seconds from its start, (L, A) in [0, 1] or NaN."""

    clip: Path
    times_s: Array
    values: Array


@dataclass(frozen=True)
class Course:
    """Outputs beside the reference, at L times; (L, A) each, NaN without a face or a value."""

    name: str
    times_s: Array
    reference: Array
    outputs: Array
    mirrored: Array
    dark: Array


# Reading ----------------------------------------------------------------------------------------


def read_references(folder: Path, action_units: Sequence[int]) -> list[Reference]:
    """Read all reference tables of a folder, for the action units of a model.

    A table has one row per frame: `time_s` (or `time`, `timestamp`) in seconds from the start of
    the clip, and columns such as `au12`, `AU12` or `AU12_r` with intensities in [0, 1]; an empty
    cell is no reference. It belongs to the clip of the same name (`clip.csv` beside `clip.mp4`),
    or has a column `file_name` (or `file`) with the clip of each row.

    Raises:
        ValueError: no table, no such clip, a missing column, or an invalid cell.
    """
    if not folder.is_dir():
        raise ValueError(f"--data {PREFIX}{folder}: no such folder")
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in TABLES)
    found = [one for path in tables for one in _read_table(path, action_units)]
    if not found:
        raise ValueError(
            f"--data {PREFIX}{folder}: no table of reference values "
            f"({', '.join(TABLES)}) beside the clips"
        )
    return found


def _read_table(path: Path, action_units: Sequence[int]) -> list[Reference]:
    table = read_text_table(path)
    units = {
        int(match[1]): place
        for place, name in enumerate(table.header)
        if (match := UNIT_COLUMN.fullmatch(name))
    }
    time = next((name for name in TIME_COLUMNS if name in table.header), None)
    if time is None or not units.keys() & set(action_units):
        raise ValueError(
            f"{path}:{table.header_line}: a reference needs a column {' or '.join(TIME_COLUMNS)} "
            f"and one of an action unit, such as au12; found {', '.join(table.header)}"
        )
    times_s = _read_column(table, table.header.index(time), needed=True)
    values = np.full((len(table.rows), len(action_units)), np.nan)
    for place, unit in enumerate(action_units):
        if unit in units:
            values[:, place] = _read_column(table, units[unit])
    rows: dict[Path, list[int]] = defaultdict(list)
    for row, clip in enumerate(_list_clips(table)):
        rows[clip].append(row)
    references = []
    for clip, chosen in rows.items():
        order = np.array(chosen)[np.argsort(times_s[chosen], kind="stable")]
        same = np.flatnonzero(np.diff(times_s[order]) == 0)
        if len(same):
            raise table.error(int(order[same[0] + 1]), f"a second row at {times_s[order[same[0]]]}")
        references.append(Reference(clip, times_s[order], values[order]))
    return references


def _read_column(table: TextTable, place: int, *, needed: bool = False) -> Array:
    """Return (N,) numbers of a column; `needed`: of times, so none may be missing."""
    cells = table.cells(place)
    values, text = parse_numbers(cells)
    wrong = np.isnan(values) | np.isinf(values) if needed else (values < 0) | (values > 1)
    rows = [text] if text is not None else np.flatnonzero(wrong).tolist()
    if rows:
        what = "a number" if needed else "in [0, 1] or empty (divide intensities from 0 to 5 by 5)"
        name = table.header[place]
        raise table.error(rows[0], f"{name} must be {what}; got {cells[rows[0]]!r}")
    return values


def _list_clips(table: TextTable) -> list[Path]:
    """Return the clip of each row."""
    folder = table.path.parent
    column = next((name for name in FILE_COLUMNS if name in table.header), None)
    if column is not None:
        names = [Path(cell) for cell in table.cells(table.header.index(column))]
        # `predict` writes names as they were given, so their folder may be another.
        clips = [
            path if (path := folder / name).is_file() else folder / name.name for name in names
        ]
        for row, clip in enumerate(clips):
            if not clip.is_file():
                raise table.error(row, f"no clip {clip}")
        return clips
    stem = table.path.stem
    beside = [path for path in sorted(folder.glob("*")) if path.stem == stem and path.is_file()]
    beside = [path for path in beside if path.suffix.lower() not in TABLES]
    if len(beside) != 1:
        raise ValueError(
            f"{table.path}: one clip {stem}.* must lie beside the table, or the table needs a "
            f"column {FILE_COLUMNS[0]}; found {len(beside)} such clips"
        )
    return beside * len(table.rows)


def read_courses(references: Sequence[Reference], extractor: Extractor) -> list[Course]:
    """Return the outputs for the person in most frames of each clip, beside the reference."""
    detector = FaceDetector()
    return [
        _read_course(reference, extractor, detector)
        for reference in tqdm(references, desc="clips", unit="clip", leave=False)
    ]


def _read_course(reference: Reference, extractor: Extractor, detector: FaceDetector) -> Course:
    def read_rows(crops: list[np.ndarray]) -> np.ndarray:
        outputs = extractor.read_affect(crops)[:, None, 9:]
        copies = extractor.read_copies(crops, (MIRRORED, DARK))
        return np.concatenate([outputs, copies], 1)  # (N, 3, A)

    size = extractor.network.config.image_size
    frames = crop_faces(read_frames(reference.clip, None), size, detector)
    found = list(extract_people(frames, read_rows))
    person = next(iter(rank_people(frame for frame, _ in found)), None)
    times_s = np.array([frame.time_s for frame, _ in found])
    frame_of = match_times(times_s, reference.times_s)
    kept = np.flatnonzero(frame_of >= 0)
    nothing = np.full((3, reference.values.shape[1]), np.nan)
    rows = [found[frame][1].get(person, nothing) for frame in frame_of[kept]]
    outputs = np.array(rows, np.float64).reshape(-1, *nothing.shape)
    name = reference.clip.name
    return Course(name, reference.times_s[kept], reference.values[kept], *outputs.swapaxes(0, 1))


def match_times(frames: Array, times: Array) -> NDArray[np.int64]:
    """Return for each of (L,) `times` the nearest of (F,) frame times, or -1.

    -1 stands for a time that is more than half a frame from all frames, and for one whose frame
    is nearer to another time. Both arrays are sorted.
    """
    if len(frames) == 0:
        return np.full(len(times), -1)
    step = float(np.median(np.diff(frames))) if len(frames) > 1 else 0.0
    after = np.searchsorted(frames, times).clip(1, max(len(frames) - 1, 1))
    after = np.minimum(after, len(frames) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(times - frames[before] <= frames[after] - times, before, after)
    distance = np.abs(times - frames[nearest])
    nearest[distance > step / 2 + 0.001] = -1
    for frame in np.unique(nearest[nearest >= 0]):
        rivals = np.flatnonzero(nearest == frame)
        nearest[np.delete(rivals, distance[rivals].argmin())] = -1
    return nearest


# Scores -----------------------------------------------------------------------------------------


def score_courses(courses: Sequence[Course], action_units: Sequence[int]) -> TimeCourseScores:
    """Score clips over their cells: a unit of a clip whose reference varies.

    Correlations and jitter do not depend on the scale of the outputs.
    """
    parts = [_score_course(course) for course in courses]
    cells = {name: np.concatenate([cells[name] for _, _, cells in parts]) for name in parts[0][2]}
    clips = {course.name: scores for course, (scores, _, _) in zip(courses, parts, strict=True)}
    names = [name for name, scores in clips.items() for _ in range(scores.units)]
    lags = [scores for scores in clips.values() if scores.lag_frames is not None]
    return TimeCourseScores(
        cells=len(names),
        pearson=_average(torch.from_numpy(cells["as_is"]), names),
        by_unit={
            action_unit_name(unit): _mean(cells["as_is"][cells["unit"] == place])
            for place, unit in enumerate(action_units)
            if (cells["unit"] == place).any()
        },
        mean_pearson={name: _mean(cells[name]) for name in MEANS},
        mirror_agreement=_mean(cells["agreement"]),
        jitter=_mean(cells["jitter"]),
        reference_jitter=_mean(cells["reference_jitter"]),
        still_neighbours=sum(still for _, still, _ in parts),
        lag_frames=median(scores.lag_frames or 0 for scores in lags) if lags else None,
        lag_s=median(scores.lag_s or 0.0 for scores in lags) if lags else None,
        clips=clips,
    )


def _mean(values: Array) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _average(values: Tensor, clips: Sequence[str]) -> ScoreInterval:
    """Return the mean of the cells, with an interval over clips."""
    if len(values) == 0:
        return ScoreInterval(None, None, None)

    def average(weights: Tensor | None) -> Tensor:
        weights = torch.ones(len(values), dtype=torch.float64) if weights is None else weights
        return ((weights * values).sum(-1) / weights.sum(-1)).unsqueeze(-1)

    return ScoreInterval.of(People(clips).intervals(average)[0])


def _score_course(course: Course) -> tuple[CourseScores, int, dict[str, Array]]:
    """Return a clip's scores, its still neighbours, and (C,) scores of its cells by name."""
    has_face = np.asarray(np.isfinite(course.outputs).all(axis=1))
    reference = np.where(has_face[:, None], course.reference, np.nan)
    deviation = np.zeros(reference.shape[1])
    known = (~np.isnan(reference)).sum(0) > 1
    deviation[known] = np.nanstd(reference[:, known], axis=0)
    units = np.flatnonzero(deviation >= VARIES)
    target = reference[:, units]
    outputs, mirrored, dark = (
        values[:, units] for values in (course.outputs, course.mirrored, course.dark)
    )
    step = float(np.median(np.diff(course.times_s))) if len(course.times_s) > 1 else 0.0
    lag, at_lag = _find_lag(outputs, target, step)
    is_still = _find_still(course, reference, step)
    cells: dict[str, Array] = {
        "unit": units.astype(float),
        "as_is": _correlate(outputs, target),
        "mirrored": _correlate(mirrored, target),
        "averaged": _correlate((outputs + mirrored) / 2, target),
        "dark": _correlate(dark, target),
        "at_lag": at_lag,
        "agreement": _correlate(mirrored, outputs),
        "jitter": _measure_jitter(outputs, is_still),
        "reference_jitter": _measure_jitter(target, is_still),
    }
    scores = CourseScores(
        frames=int(has_face.sum()),
        without_face=int((~has_face).sum()),
        units=len(units),
        mean_pearson=_mean(cells["as_is"]),
        lag_frames=lag,
        lag_s=None if lag is None else lag * step,
    )
    return scores, int(is_still.sum()), cells


def _correlate(outputs: Array, target: Array) -> Array:
    """Return (C,) correlations where both are known; a constant output counts as 0."""
    known = np.where(np.isnan(outputs), np.nan, target)
    labels = torch.from_numpy(known)
    scores = pearson_scores(torch.from_numpy(np.nan_to_num(outputs)), labels)
    return count_constant_as_zero(scores, labels).numpy()


def _find_lag(outputs: Array, target: Array, step: float) -> tuple[int | None, Array]:
    """Return the shift in rows with the highest mean correlation, and the (C,) scores there.

    It is positive if the outputs come after the reference. Ties: the smallest shift.
    """
    best: tuple[float, int | None, Array] = (-np.inf, None, _correlate(outputs, target))
    most = min(round(FARTHEST_S / step), len(target) // 4) if step else 0
    for lag in sorted(range(-most, most + 1), key=abs):
        shifted = np.full_like(outputs, np.nan)
        shifted[max(-lag, 0) : len(outputs) - max(lag, 0)] = outputs[
            max(lag, 0) : len(outputs) + min(lag, 0)
        ]
        scores = _correlate(shifted, target)
        mean = _mean(scores)
        if mean is not None and mean > best[0] + 1e-9:
            best = (mean, lag, scores)
    return best[1], best[2]


def _find_still(course: Course, reference: Array, step: float) -> NDArray[np.bool_]:
    """Return (L - 1,) whether two successive rows have a face and hardly another reference."""
    changes = np.abs(np.diff(reference, axis=0))
    known = ~np.isnan(changes)
    mean = np.where(known, changes, 0).sum(1) / np.maximum(known.sum(1), 1)
    return known.any(1) & (mean <= STILL) & (np.diff(course.times_s) <= 1.5 * step)


def _measure_jitter(values: Array, is_still: NDArray[np.bool_]) -> Array:
    """Return (C,) mean changes between still neighbours, in deviations; NaN if unknown."""
    if is_still.sum() < LEAST_PAIRS:
        return np.full(values.shape[1], np.nan)
    changes = np.abs(np.diff(values, axis=0))[is_still]
    counts = (~np.isnan(changes)).sum(0)
    deviation = np.nanstd(values, axis=0)
    safe = np.where((deviation > 0) & (counts > 0), deviation * counts, np.nan)
    return np.nansum(changes, axis=0) / safe
