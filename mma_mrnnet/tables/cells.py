"""Read tables as text cells, parse numbers, and write tables."""

import codecs
import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mma_mrnnet.files import check_can_write_file, replaced_file

if TYPE_CHECKING:  # checking an output's path must not cost these imports
    import numpy as np
    import pandas as pd

WRITTEN_SUFFIXES = (".csv", ".json", ".parquet")
_LINES_AHEAD = 50  # lines that are searched for the delimiter and the header


# ---- numbers in cells ---------------------------------------------------------------------------

_NO_NUMBER = re.compile(
    r"""
    | [-+]?nan ( \( \w* \) )?         # C, Python, R: nan, -nan, -nan(ind), nan(0x8000)
    | [-+]?\d\.\#[a-z]+\d*            # Microsoft's C runtime: 1.#IND, -1.#QNAN0, 1.#J
    | \#[^\d\s]\S* ( [ ]n/?a )?       # spreadsheets: #N/A, #DIV/0!, #NV, #WERT!, #N/A N/A
    | fit_failed | find_failed        # FaceReader
    | n/?a | <na> | nat | null | none | nil | missing | undefined | [-.?\u2013\u2014]+
    """,
    re.IGNORECASE | re.VERBOSE,
)


def is_missing(cell: str) -> bool:
    """Return whether a cell is empty or means "no number"."""
    return _NO_NUMBER.fullmatch(cell.strip()) is not None


def parse_number(cell: str) -> float | None:
    """Return the number; NaN for a missing one, None for text."""
    if is_missing(cell):
        return math.nan
    try:
        return float(cell)
    except ValueError:
        return None


def parse_numbers(cells: Sequence[str]) -> tuple["np.ndarray", int | None]:
    """Return (N,) float64, NaN where missing, and the index of the first text cell or None."""
    import numpy as np

    try:
        return np.array(cells, np.float64), None
    except ValueError:  # an empty cell, or text
        values = [parse_number(cell) for cell in cells]
    text = next((place for place, value in enumerate(values) if value is None), None)
    return np.array([math.nan if value is None else value for value in values]), text


# ---- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TextTable:
    """A file's cells as text, without surrounding blanks and quotes.

    `lines` are line numbers from 1, or names if each row is a file; `header` may be empty.
    """

    path: Path
    header: list[str]
    lines: Sequence[int | str]
    rows: list[list[str]]
    header_line: int = 1

    def cells(self, column: int) -> list[str]:
        """Return one column's cells."""
        return [row[column] for row in self.rows]

    def error(self, row: int, problem: str) -> ValueError:
        """Return a ValueError whose message starts with the file and the row's line."""
        return ValueError(f"{self.path}:{self.lines[row]}: {problem}")


def read_text_table(
    path: Path, *, delimiter: str | None = None, has_header: bool = True, width: int | None = None
) -> TextTable:
    """Read a .parquet or .jsonl file, or any other file as UTF-8 text.

    A byte order mark of UTF-16 selects that encoding. Blank lines are skipped, but count in line
    numbers. `delimiter` None detects a comma, semicolon or tab (then decimal commas are allowed),
    or blanks, and skips lines above the header. `width` None takes the number of cells of the
    first line.

    Raises:
        ValueError: a missing or empty file, no table, or a row with another number of cells.
    """
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    text = _read_text(path)
    if path.suffix.lower() == ".jsonl":
        return _read_json_lines(path, text)
    separator = delimiter or _find_delimiter(text)
    found = _split_cells(path, text, separator)
    place = _find_header([row for _, row in found[:_LINES_AHEAD]]) if delimiter is None else 0
    header_line, first = found[place]
    first[0] = first[0].removeprefix("#").strip()
    if delimiter is None and _has_row_names(len(first), [row for _, row in found[place + 1 :]]):
        first.insert(0, "")
    width = width or len(first)
    rows = found[place + 1 :] if has_header else found[place:]
    for line, row in rows:
        if len(row) == width + 1 and not row[-1]:
            row.pop()  # a trailing delimiter
        if len(row) != width:
            raise ValueError(f"{path}:{line}: expected {width} values; got {len(row)}")
    lines, cells = [line for line, _ in rows], [row for _, row in rows]
    if separator == ";" or (separator == "\t" and _has_decimal_commas(cells)):
        cells = [[_DECIMAL_COMMA.sub(r"\1.\2", cell) for cell in row] for row in cells]
    return TextTable(path, first if has_header else [], lines, cells, header_line)


def _has_decimal_commas(rows: list[list[str]]) -> bool:
    """Return whether commas in numbers cannot be those of thousands, and no number has a point."""
    numbers = [cell for row in rows for cell in row if cell[-1:].isdigit()]
    commas = [cell for cell in numbers if _DECIMAL_COMMA.match(cell)]
    if any("." in cell and parse_number(cell) is not None for cell in numbers):
        return False
    return any(len(cell.rpartition(",")[2]) != 3 for cell in commas)


def _has_row_names(width: int, rows: list[list[str]]) -> bool:
    """Return whether rows begin with row numbers, as R writes them without a header cell."""
    numbers = [str(number) for number in range(1, len(rows) + 1)]
    has_one_more = all(len(row) == width + 1 for row in rows)
    return bool(rows) and has_one_more and [row[0] for row in rows] == numbers


def _read_text(path: Path) -> str:
    try:
        content = path.read_bytes()
        has_mark = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if has_mark else "utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a table in UTF-8: {error}") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror or error}") from error


def _split_cells(path: Path, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return line number and cells of all lines that are not blank; at least one."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    try:
        found = [(reader.line_num, [_strip(cell) for cell in row]) for row in reader]
    except csv.Error as error:
        raise ValueError(f"{path}: not a table in UTF-8: {error}") from error
    found = [(line, row) for line, row in found if any(row)]
    if not found:
        raise ValueError(f"{path}: the file is empty")
    return found


_DECIMAL_COMMA = re.compile(r"^([-+]?\d+),(\d+)$")


def _strip(cell: str) -> str:
    return cell.strip().strip("'\"").strip()


def _read_parquet(path: Path) -> TextTable:
    if not path.is_file():
        raise ValueError(f"{path}: cannot be read: No such file")
    import pandas as pd

    try:
        table = pd.read_parquet(path).reset_index(drop=True)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: not a parquet file: {error}") from error
    columns = [["" if cell is None else str(cell) for cell in table[name]] for name in table]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return TextTable(path, [str(name) for name in table], list(range(1, len(rows) + 1)), rows)


def _read_json_lines(path: Path, text: str) -> TextTable:
    """Read one JSON object per line; missing keys and null are empty cells."""
    found: list[tuple[int, dict[str, Any]]] = []
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}:{line}: not a line of JSON: {error}") from error
        if not isinstance(value, dict):
            raise ValueError(f"{path}:{line}: a JSON object is needed; got {content[:80]!r}")
        found.append((line, value))
    header = list(dict.fromkeys(str(name) for _, value in found for name in value))
    values = [[value.get(name) for name in header] for _, value in found]
    rows = [["" if cell is None else str(cell).strip() for cell in row] for row in values]
    return TextTable(path, header, [line for line, _ in found], rows)


def _find_delimiter(text: str) -> str:
    """Return the delimiter that is most frequent in most of the first lines."""
    lines = [line for line in text.split("\n", _LINES_AHEAD)[:_LINES_AHEAD] if line.strip()]
    best, most = ",", 0
    for delimiter in (",", ";", "\t"):
        counts: Counter[int] = Counter()
        for line in lines:
            has_other = delimiter == "," and (";" in line or "\t" in line)
            counted = re.sub(r"(?<=\d),(?=\d)", "", line) if has_other else line  # decimal commas
            counts[counted.count(delimiter)] += 1
        usual = max(counts, key=lambda count: (counts[count], count), default=0)
        if usual > most:
            best, most = delimiter, usual
    words = {len(line.split()) for line in lines}
    return " " if most == 0 and max(words, default=0) > 1 and len(words) <= 2 else best


def _find_header(rows: list[list[str]]) -> int:
    """Return the index of the header, below any preamble."""
    start = 0
    while start < len(rows) - 1 and rows[start][0].startswith(("#", "sep=")):  # Excel's: sep=;
        start += 1
    if start and len(rows[start - 1]) == len(rows[start]) > 1 and is_all_numbers(rows[start]):
        return start - 1  # the header line itself starts with #
    widths = Counter(map(len, rows[start:]))
    width = max(widths, key=lambda number: (widths[number], number))
    place = next(place for place, row in enumerate(rows[start:], start) if len(row) >= width)
    return start if is_all_numbers(rows[place]) else place


def is_all_numbers(cells: Sequence[str]) -> bool:
    """Return whether no cell is text."""
    return all(parse_number(cell) is not None for cell in cells if cell)


# ---- writing ------------------------------------------------------------------------------------


def write_table(table: "pd.DataFrame", path: str | os.PathLike[str]) -> None:
    """Write a .csv, .json or .parquet file atomically; in JSON, NaN becomes null.

    In a .csv file, a text that a spreadsheet would run as a formula starts with an apostrophe,
    which `read_text_table` drops. Raises ValueError as `check_table_path` does.
    """
    path = Path(path)
    check_table_path(path)
    with replaced_file(path) as staging:
        if path.suffix.lower() == ".csv":
            named = table.rename(columns=_disarm)
            named.apply(_disarm_column).to_csv(staging, index=False)
        elif path.suffix.lower() == ".json":
            table.to_json(staging, orient="records", indent=1, double_precision=6)
        else:
            table.to_parquet(staging, index=False)


def _disarm_column(column: "pd.Series") -> "pd.Series":
    return column if column.dtype.kind in "biuf" else column.map(_disarm)


def _disarm(cell: Any) -> Any:
    may_run = isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{cell}" if may_run and parse_number(cell) is None else cell


def check_table_path(path: Path) -> None:
    """Raise ValueError for a wrong suffix, a missing directory, or a path that is a directory."""
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        got = path.suffix or "no ending"
        raise ValueError(f"{path}: a table is written as .csv, .json or .parquet; got {got!r}")
    if path.suffix.lower() == ".parquet" and find_spec("pyarrow") is None:
        raise ValueError(f"{path}: .parquet needs pyarrow: pip install 'mma-mrnnet[train]'")
    check_can_write_file(path)
