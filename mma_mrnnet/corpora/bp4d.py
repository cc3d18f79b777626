"""BP4D-Spontaneous (Zhang et al., 2014): 41 people in eight tasks, action units 0 or 1."""

from collections.abc import Sequence
from pathlib import Path

import datasets
import pandas as pd

from mma_mrnnet.corpora.frame_tables import (
    as_splits,
    known_action_units,
    read_frame_numbers,
    read_presence,
    split_by_subject,
)
from mma_mrnnet.features.records import action_unit_column
from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.results import Provenance
from mma_mrnnet.tables.cells import read_text_table

PROVENANCE = Provenance("bp4d", "research-only", labels="human")

UNKNOWN = 9
"""Mark of a unit that could not be coded."""


def load_bp4d(
    folder: str | Path, action_units: Sequence[int] = ACTION_UNITS
) -> datasets.DatasetDict:
    """Read frames of BP4D with action units 0 or 1.

    BP4D has no split: a fifth of the people are validation (our choice). The folder holds
    `AUCoding/AU_OCC/F001_T1.csv` (header: `0` above the frames, then unit numbers) and the crops
    `cropped_aligned/F001_T1/00001.jpg` by frame number (our convention).

    Raises:
        ValueError: no annotations, a wrong header or value, or a duplicate frame.
    """
    folder = Path(folder).absolute()
    files = sorted((folder / "AUCoding/AU_OCC").glob("*_T*.csv"))
    if not files:
        raise ValueError(f"{folder / 'AUCoding/AU_OCC'}: no F001_T1.csv or the like here")
    rows = pd.concat([_read_task(path, folder, action_units) for path in files])
    return as_splits(split_by_subject(rows, folder), "bp4d", folder, action_units)


def _read_task(path: Path, folder: Path, action_units: Sequence[int]) -> pd.DataFrame:
    table = read_text_table(path, delimiter=",")
    if table.header[0] != "0" or not all(name.isdigit() for name in table.header):
        raise ValueError(
            f"{path}:1: the header must be 0 and then unit numbers; got {','.join(table.header)}"
        )
    frames = read_frame_numbers(table, 0)
    units = [int(name) for name in table.header[1:]]
    return pd.DataFrame(
        {
            "image": [
                f"{folder.as_posix()}/cropped_aligned/{path.stem}/{frame:05d}.jpg"
                for frame in frames
            ],
            "subject": path.stem.partition("_")[0],
            **{
                action_unit_column(unit): read_presence(
                    table, units.index(unit) + 1, f"AU {unit}", none=(UNKNOWN,)
                )
                for unit in known_action_units(units, path, action_units)
            },
        }
    )
