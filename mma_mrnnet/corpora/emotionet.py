"""EmotioNet (Fabian Benitez-Quiroz et al., CVPR 2016): web photos with action units."""

from collections.abc import Sequence
from pathlib import Path

import datasets
import pandas as pd

from mma_mrnnet.corpora.frame_tables import (
    as_splits,
    check_unique,
    known_action_units,
    read_presence,
    split_by_subject,
)
from mma_mrnnet.features.records import action_unit_column
from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.results import Provenance
from mma_mrnnet.tables.cells import TextTable, read_text_table

PROVENANCE = Provenance("emotionet", "research-only", labels="human")

UNKNOWN = 999
"""Mark of a unit that was not annotated."""


def load_emotionet(
    folder: str | Path, action_units: Sequence[int] = ACTION_UNITS
) -> datasets.DatasetDict:
    """Read photos of EmotioNet with action units 0 or 1.

    The folder holds one `EmotioNet_FACS*.csv` or `.xlsx` (needs openpyxl; expert labels,
    preferred) or `dataFile_*.txt`, and `images/`, named by the last part of their URL. Images are
    not cropped. EmotioNet has no split and no people: each image is its own `subject`, and a fifth
    of them are validation (our choice).

    Raises:
        ValueError: no readable annotation file, a wrong value, or a duplicate image.
    """
    folder = Path(folder).absolute()
    experts = sorted([*folder.glob("EmotioNet_FACS*.csv"), *folder.glob("EmotioNet_FACS*.xlsx")])
    older = sorted(folder.glob("dataFile_*.txt"))
    if len(experts) > 1 or not (experts or older):
        raise ValueError(
            f"{folder}: one EmotioNet_FACS*.csv or .xlsx, or dataFile_*.txt, must be here; "
            f"got {[*map(str, experts)]}"
        )
    if experts:
        path = experts[0]
        is_workbook = path.suffix == ".xlsx"
        table = _read_workbook(path) if is_workbook else read_text_table(path, delimiter=",")
        rows = _label_images(table, folder, action_units)
    else:
        tables = [
            _name_columns(read_text_table(path, delimiter="\t", has_header=False)) for path in older
        ]
        rows = pd.concat([_label_images(table, folder, action_units) for table in tables])
    return as_splits(split_by_subject(rows, folder), "emotionet", folder, action_units)


def _read_workbook(path: Path) -> TextTable:
    """Read the first sheet as a csv file would be read."""
    try:
        import openpyxl  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{path}: reading .xlsx needs openpyxl; install it, or save the sheet as .csv"
        ) from error
    sheet = pd.read_excel(path, header=None, dtype=str, engine="openpyxl").fillna("")
    names, *rows = [
        [cell.strip().strip("'\"").strip() for cell in cells] for cells in sheet.to_numpy().tolist()
    ]
    return TextTable(path, names, range(2, len(rows) + 2), rows)


def _name_columns(table: TextTable) -> TextTable:
    """Name the columns of an older list: two addresses, then AU 1, 2, ..."""
    units = len(table.rows[0]) - 2
    return TextTable(
        table.path,
        ["URL", "URL orig", *(f"AU {unit}" for unit in range(1, units + 1))],
        table.lines,
        table.rows,
    )


def _label_images(table: TextTable, folder: Path, action_units: Sequence[int]) -> pd.DataFrame:
    columns = {
        int(number): column
        for column, name in enumerate(table.header)
        if name[:2].upper() == "AU" and (number := name[2:].strip()).isdigit()
    }
    unread = [
        name for name in table.header if name[:2].upper() == "AU" and not name[2:].strip().isdigit()
    ]
    if unread:
        raise ValueError(
            f"{table.path}:1: a unit's column must be called 'AU 1' and so on; "
            f"got {', '.join(unread)}"
        )
    if "URL" not in table.header or not columns:
        raise ValueError(
            f"{table.path}:1: columns URL and 'AU 1' ... must be here; got {table.header}"
        )
    url = table.header.index("URL")
    check_unique(table, url)
    names = [address.rpartition("/")[2] for address in table.cells(url)]
    return pd.DataFrame(
        {
            "image": [f"{folder.as_posix()}/images/{name}" for name in names],
            "subject": names,
            **{
                action_unit_column(unit): read_presence(
                    table, columns[unit], f"AU {unit}", none=(UNKNOWN,)
                )
                for unit in known_action_units(columns, table.path, action_units)
            },
        }
    )
