"""Shared by the readers of frame corpora: label checks, and tables as splits."""

import hashlib
import logging
import os
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from mma_mrnnet.features.records import FRAME_SPLITS, frame_features
from mma_mrnnet.model.labels import EXPRESSIONS, NO_CLASS
from mma_mrnnet.tables.cells import TextTable

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2
"""Share of subjects for validation if a corpus has no split (our choice)."""


def check_unique(table: TextTable, column: int) -> None:
    """Check that an identifying column has no duplicates."""
    seen: dict[str, int | str] = {}
    for row, cell in enumerate(table.cells(column)):
        if cell in seen:
            raise table.error(row, f"{cell!r} is already in line {seen[cell]}")
        seen[cell] = table.lines[row]


def read_numbers(
    table: TextTable,
    column: int,
    name: str,
    *,
    least: float,
    most: float,
    none: Sequence[float] = (),
) -> NDArray[np.float64]:
    """Return (N,) values in [least, most]; NaN for `nan` and the marks in `none`."""
    values = _read_floats(table, column, name)
    values[np.isin(values, none)] = np.nan
    outside = (values < least) | (values > most)
    if outside.any():
        row = int(outside.argmax())
        raise table.error(
            row,
            f"{name} must be in [{least:g}, {most:g}]{_name_marks(none)}; "
            f"got {table.rows[row][column]}",
        )
    return values


def read_frame_numbers(table: TextTable, column: int) -> NDArray[np.int64]:
    """Return (N,) whole numbers >= 0 without duplicates."""
    check_unique(table, column)
    values = _read_floats(table, column, "frame")
    wrong = ~((values >= 0) & (values % 1 == 0))
    if wrong.any():
        row = int(wrong.argmax())
        raise table.error(row, f"frame must be a whole number; got {table.rows[row][column]!r}")
    return values.astype(np.int64)


def read_presence(
    table: TextTable, column: int, name: str, *, none: Sequence[float]
) -> NDArray[np.float64]:
    """Return (N,) values 0 and 1; NaN for the marks in `none`."""
    return _read_choices(table, column, name, (0, 1), none)


def read_expressions(
    table: TextTable,
    column: int,
    names: Sequence[str],
    *,
    first: int = 0,
    none: Sequence[float] = (),
) -> NDArray[np.int64]:
    """Return (N,) indices into `labels.EXPRESSIONS`, or -100.

    `names` are the corpus's classes in code order from `first`; other classes than ours become
    -100, and so do the codes in `none` ("not labelled").
    """
    codes = _read_choices(table, column, "expression", range(first, first + len(names)), none)
    own = np.array([EXPRESSIONS.index(name) if name in EXPRESSIONS else NO_CLASS for name in names])
    labelled = ~np.isnan(codes)
    indices = np.full(len(codes), NO_CLASS, dtype=np.int64)
    indices[labelled] = own[codes[labelled].astype(np.int64) - first]
    foreign = {
        name: int((codes == code).sum())
        for code, name in enumerate(names, first)
        if name not in EXPRESSIONS
    }
    if any(foreign.values()):
        logger.info(
            "%s: expressions that the model does not have, taken as unlabelled: %s",
            table.path,
            foreign,
        )
    return indices


def _read_choices(
    table: TextTable, column: int, name: str, choices: Iterable[int], none: Sequence[float]
) -> NDArray[np.float64]:
    values = _read_floats(table, column, name)
    wrong = ~np.isin(values, [*choices, *none])
    if wrong.any():
        row = int(wrong.argmax())
        accepted = ", ".join(map(str, choices))
        raise table.error(
            row,
            f"{name} must be one of {accepted}{_name_marks(none)}; got {table.rows[row][column]!r}",
        )
    values[np.isin(values, none)] = np.nan
    return values


def _read_floats(table: TextTable, column: int, name: str) -> NDArray[np.float64]:
    cells = table.cells(column)
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError:
        for row, cell in enumerate(cells):
            try:
                float(cell)
            except ValueError as error:
                raise table.error(row, f"{name} must be a number; got {cell!r}") from error
        raise


def _name_marks(none: Sequence[float]) -> str:
    return f" (or {', '.join(f'{mark:g}' for mark in none)}: no label)" if none else ""


def known_action_units(units: Iterable[int], place: Path, action_units: Sequence[int]) -> list[int]:
    """Return those of the units that are in `action_units`; log the others."""
    units = list(units)
    foreign = [unit for unit in units if unit not in action_units]
    if foreign:
        logger.info(
            "%s: action units %s are left out: the model has no output for them", place, foreign
        )
    return [unit for unit in units if unit in action_units]


def as_splits(
    tables: dict[str, pd.DataFrame],
    corpus: str,
    folder: Path,
    action_units: Sequence[int],
    required: Collection[str] = FRAME_SPLITS,
) -> datasets.DatasetDict:
    """Return tables as splits with columns `records.frame_features`.

    Tables have the columns `image` (path with forward slashes), `subject`, and any labels; missing
    units become NaN. Rows without a label or image file are dropped, and the log counts them.
    Empty splits are dropped unless `required`. Nothing is cached, and no image is opened.

    Raises:
        ValueError: a duplicate image, a subject in both splits, or an empty required split.
    """
    features = frame_features(action_units)
    splits = datasets.DatasetDict()
    for split in FRAME_SPLITS:
        place = f"{folder}: {corpus} {split}"
        table = _keep_labelled(tables[split], place, features)
        if len(table):
            splits[split] = _make_dataset(table, corpus, features)
        elif split in required:
            raise ValueError(f"{place}: no labelled row has its image")
    check_people_apart(splits, folder)
    return splits


def check_people_apart(splits: datasets.DatasetDict, folder: Path) -> None:
    """Check that no person is in two splits."""
    seen: set[str] = set()
    for rows in splits.values():
        both = seen.intersection(people := set(rows["subject"]))
        if both:
            raise ValueError(
                f"{folder}: {len(both)} subjects are in both splits, for example {min(both)!r}"
            )
        seen |= people


def _keep_labelled(table: pd.DataFrame, place: str, features: datasets.Features) -> pd.DataFrame:
    table = table.reindex(columns=list(features))
    twice = table["image"].duplicated()
    if twice.any():
        raise ValueError(f"{place}: {table['image'][twice].iloc[0]} is listed twice")
    table["expression"] = table["expression"].fillna(NO_CLASS).astype(np.int64)
    values = [
        name for name, feature in features.items() if getattr(feature, "dtype", "") == "float32"
    ]
    table[values] = table[values].astype(np.float32)
    labelled = table[values].notna().any(axis=1) | (table["expression"] != NO_CLASS)
    if not labelled.all():
        logger.info(
            "%s: %d of %d rows have no label and are left out", place, (~labelled).sum(), len(table)
        )
    table = table[labelled]
    there = has_file(table["image"])
    if not there.all():
        logger.warning(
            "%s: %d of %d images are missing and left out, for example %s",
            place,
            (~there).sum(),
            len(table),
            table["image"][~there].iloc[0],
        )
    return table[there]


def has_file(paths: Iterable[str]) -> NDArray[np.bool_]:
    """Return (N,) whether each path is a file (no named pipe, no device).

    Lists folders, far faster than one check per file.
    """
    listed: dict[str, set[str]] = {}
    found = []
    for path in paths:
        folder, _, name = path.rpartition("/")
        if folder not in listed:
            listed[folder] = (
                {entry.name for entry in os.scandir(folder) if entry.is_file()}
                if Path(folder).is_dir()
                else set()
            )
        found.append(name in listed[folder])
    return np.array(found, dtype=bool)


def _make_dataset(
    table: pd.DataFrame, corpus: str, features: datasets.Features
) -> datasets.Dataset:
    table = table.assign(source=corpus)
    columns = {
        name: pa.array(
            table[name].astype(str).tolist()
            if name in ("image", "subject", "source")
            else table[name].values
        )
        for name in features
    }
    return datasets.Dataset.from_dict(columns, features=features)


def split_by_subject(table: pd.DataFrame, folder: Path) -> dict[str, pd.DataFrame]:
    """Split by subject: a fifth, at least one, is validation (our choice).

    Deterministic: subjects are ordered by the SHA-256 of their names. Raises ValueError for fewer
    than two subjects.
    """
    subjects = sorted(
        set(table["subject"]), key=lambda name: hashlib.sha256(name.encode()).hexdigest()
    )
    if len(subjects) < 2:
        raise ValueError(
            f"{folder}: two subjects or more are needed to split by subject; got {subjects}"
        )
    held_out = table["subject"].isin(subjects[: max(round(VALIDATION_SHARE * len(subjects)), 1)])
    return {"train": table[~held_out], "validation": table[held_out]}
