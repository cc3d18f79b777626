"""A user's own crops: images and a `metadata.csv`, as in the Hub's `imagefolder`."""

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mma_mrnnet.corpora.frame_tables import (
    as_splits,
    check_unique,
    known_action_units,
    read_numbers,
    split_by_subject,
)
from mma_mrnnet.features.records import FRAME_SPLITS, action_unit_column, check_inside
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, NO_CLASS
from mma_mrnnet.tables.cells import TextTable, is_missing, parse_number, read_text_table

logger = logging.getLogger(__name__)


def load_labelled_folder(
    folder: str | Path,
    action_units: Sequence[int] = ACTION_UNITS,
    required: Collection[str] = FRAME_SPLITS,
) -> datasets.DatasetDict:
    """Read images with the labels of the folder's `metadata.csv`.

    Columns: `file_name` (relative to the folder), `subject`, and any of `valence` and `arousal`
    (-1 to 1), `expression` (name in `labels.EXPRESSIONS`, or index), `au01` ... (0 to 1) and
    `split` (`train` or `validation`; default: a fifth of the subjects are validation). Other
    columns are ignored, with a log message. Empty cells, words for "no number" and negative
    classes are unlabelled. `required` splits must not be empty.

    Raises:
        ValueError: a missing column, a label out of range, a duplicate file, or a subject in
            both splits.
    """
    folder = Path(folder).absolute()
    table = read_text_table(folder / "metadata.csv")
    missing = {"file_name", "subject"} - set(table.header)
    if missing or len(set(table.header)) < len(table.header):
        raise ValueError(
            f"{table.path}:1: columns file_name and subject must be here, each name once; "
            f"found {table.header}"
        )
    check_unique(table, table.header.index("file_name"))
    names = table.cells(table.header.index("file_name"))
    for line, name in zip(table.lines, names, strict=True):
        check_inside(name, folder, folder, f"{table.path}:{line}")
    rows = pd.DataFrame(
        {
            "image": [f"{folder.as_posix()}/{name}" for name in names],
            "subject": table.cells(table.header.index("subject")),
            **_read_labels(table, action_units),
        }
    )
    splits = (
        _split_by_name(table, rows) if "split" in table.header else split_by_subject(rows, folder)
    )
    return as_splits(splits, "labelled_folder", folder, action_units, required)


def _read_labels(table: TextTable, action_units: Sequence[int]) -> dict[str, NDArray]:
    units = [int(name[2:]) for name in table.header if re.fullmatch(r"au\d\d", name)]
    wanted = [
        "valence",
        "arousal",
        *map(action_unit_column, known_action_units(units, table.path, action_units)),
    ]
    known = {
        "file_name",
        "subject",
        "split",
        "expression",
        *wanted,
        *map(action_unit_column, units),
    }
    others = [name for name in table.header if name not in known]
    if others:
        logger.warning("%s: columns %s are not read", table.path, others)
    rows = [["nan" if is_missing(cell) else cell for cell in row] for row in table.rows]
    filled = replace(table, rows=rows)
    labels: dict[str, NDArray] = {
        name: read_numbers(
            filled,
            table.header.index(name),
            name,
            least=-1 if name in ("valence", "arousal") else 0,
            most=1,
        )
        for name in wanted
        if name in table.header
    }
    if "expression" in table.header:
        column = table.header.index("expression")
        labels["expression"] = np.array(
            [_read_expression(table, row, column) for row in range(len(table.rows))]
        )
    if not labels:
        raise ValueError(f"{table.path}:1: no column of labels here; got {table.header}")
    return labels


def _read_expression(table: TextTable, row: int, column: int) -> int:
    cell = table.rows[row][column].lower()
    if is_missing(cell):
        return NO_CLASS
    if cell in EXPRESSIONS:
        return EXPRESSIONS.index(cell)
    if re.fullmatch(r"-\d+", cell):
        return NO_CLASS
    number = parse_number(cell)  # not int(), which refuses thousands of digits
    if cell.isdecimal() and number is not None and number < len(EXPRESSIONS):
        return int(number)
    raise table.error(
        row, f"expression must be one of {', '.join(EXPRESSIONS)} or 0 to 6; got {cell!r}"
    )


def _split_by_name(table: TextTable, rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    names = table.cells(table.header.index("split"))
    for row, name in enumerate(names):
        if name not in FRAME_SPLITS:
            raise table.error(row, f"split must be train or validation; got {name!r}")
    return {split: rows[[name == split for name in names]] for split in FRAME_SPLITS}
