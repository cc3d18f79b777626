"""DISFA (Mavadati et al., 2013): videos of 27 people, intensities of twelve action units."""

from collections.abc import Sequence
from pathlib import Path

import datasets
import numpy as np
import pandas as pd

from mma_mrnnet.corpora.frame_tables import (
    as_splits,
    read_frame_numbers,
    read_numbers,
    split_by_subject,
)
from mma_mrnnet.features.records import action_unit_column
from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.results import Provenance
from mma_mrnnet.tables.cells import read_text_table

PROVENANCE = Provenance("disfa", "research-only", labels="human")

DISFA_UNITS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
HIGHEST = 5
"""The highest intensity; the lowest is 0."""


def load_disfa(
    folder: str | Path, action_units: Sequence[int] = ACTION_UNITS
) -> datasets.DatasetDict:
    """Read frames of DISFA with action units divided by 5, in [0, 1].

    DISFA has no split: a fifth of the people are validation (our choice). The folder holds
    `ActionUnit_Labels/SN001/SN001_au1.txt` (rows `frame,intensity`) for each person and unit, and
    the crops `cropped_aligned/SN001/00001.jpg` by frame number (our convention).

    Raises:
        ValueError: no annotations, a missing file, an intensity outside 0 to 5, or files of one
            person with different frames.
    """
    folder = Path(folder).absolute()
    people = sorted(path for path in (folder / "ActionUnit_Labels").glob("*") if path.is_dir())
    if not people:
        raise ValueError(f"{folder / 'ActionUnit_Labels'}: no folders of people here")
    rows = pd.concat([_read_person(person, folder) for person in people])
    return as_splits(split_by_subject(rows, folder), "disfa", folder, action_units)


def _read_person(person: Path, folder: Path) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {}
    frames = np.zeros(0, np.int64)
    for unit in DISFA_UNITS:
        path = person / f"{person.name}_au{unit}.txt"
        table = read_text_table(path, delimiter=",", has_header=False, width=2)
        numbers = read_frame_numbers(table, 0)
        frames = frames if columns else numbers
        if not np.array_equal(numbers, frames):
            raise ValueError(
                f"{table.path}: its {len(table.rows)} frames are not the {len(frames)} of "
                f"{person.name}_au1.txt"
            )
        intensity = read_numbers(table, 1, f"AU {unit}", least=0, most=HIGHEST)
        columns[action_unit_column(unit)] = intensity / HIGHEST
    crops = f"{folder.as_posix()}/cropped_aligned/{person.name}"
    return pd.DataFrame(
        {
            "image": [f"{crops}/{frame:05d}.jpg" for frame in frames],
            "subject": person.name,
            **columns,
        }
    )
