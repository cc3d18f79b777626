"""Prepare the labelled crops of the shipped extractor: one meaning for each label.

The crops come with labels of two meanings: what a landmark model reads from the picture, and the
shapes from which a face was made. The two agree poorly (AU1 .42, AU4 .30, AU24 .21), and one head
cannot learn both. Here every unit that the landmark model can read gets its reading, on photos and
on made faces alike. Known by construction remain AU6, AU9, AU15, expressions and
valence-arousal. Made faces that only talk become neutral.

    python benchmarks/prepare_faces.py FACES OUTPUT

FACES holds `train-*.parquet`, `validation-*.parquet` and `landmark_model.parquet`.
"""

import argparse
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mma_mrnnet.features.records import action_unit_column
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, neutral_talkers

MADE = ("warp", "render")
SHAPES = {
    1: ("browInnerUp",),
    2: ("browOuterUpLeft", "browOuterUpRight"),
    4: ("browDownLeft", "browDownRight"),
    5: ("eyeWideLeft", "eyeWideRight"),
    7: ("eyeSquintLeft", "eyeSquintRight"),
    10: ("mouthUpperUpLeft", "mouthUpperUpRight"),
    12: ("mouthSmileLeft", "mouthSmileRight"),
    17: ("mouthShrugLower",),
    20: ("mouthStretchLeft", "mouthStretchRight"),
    24: ("mouthPressLeft", "mouthPressRight"),
    25: ("lips_apart",),
    26: ("jawOpen",),
}
"""Shapes of the landmark model whose mean stands for a unit."""
RESTING = {4: 0.20, 7: 0.30, 24: 0.10}
"""What the landmark model reads on calm faces; it is shifted to 0."""
BROAD_SMILE = 0.4
"""A stronger AU12 raises the landmark model's AU10 too; AU10 is then unknown."""


def read_units(readings: pd.DataFrame) -> pd.DataFrame:
    """Return the unit intensities (columns `au01` ...) of the landmark model's readings."""
    units = pd.DataFrame(index=readings.index)
    for unit, shapes in SHAPES.items():
        rest = RESTING.get(unit, 0.0)
        mean = readings[list(shapes)].mean(axis=1)
        units[action_unit_column(unit)] = ((mean - rest) / (1 - rest)).clip(0, 1)
    smiles = units[action_unit_column(12)] > BROAD_SMILE
    units.loc[smiles, action_unit_column(10)] = np.nan
    return units


def relabel(table: pa.Table, readings: pd.DataFrame) -> pa.Table:
    """Give made faces the landmark model's units; label those that only talk as neutral."""
    names = [action_unit_column(unit) for unit in ACTION_UNITS]
    labels = table.select(["source", "expression", "valence", "arousal", *names]).to_pandas()
    paths = pd.Series([image["path"] for image in table["image"].to_pylist()])
    made = labels["source"].isin(MADE)

    intensity = torch.from_numpy(labels[names].to_numpy(np.float32, copy=True))
    talks = neutral_talkers(intensity, ACTION_UNITS).numpy() & made & (labels["expression"] < 0)
    labels.loc[talks, "expression"] = EXPRESSIONS.index("neutral")
    labels.loc[talks, ["valence", "arousal"]] = 0.0

    units = readings.reindex(paths).reset_index(drop=True)
    labels.loc[made, units.columns] = units[made]
    for name in ("expression", "valence", "arousal", *units.columns):
        place = table.schema.get_field_index(name)
        column = pa.array(labels[name], table.schema.field(name).type)
        table = table.set_column(place, table.schema.field(name), column)
    return table


def main() -> None:
    """Write the relabelled crops and their provenance to a new folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("output", type=Path)
    folders = parser.parse_args()
    folders.output.mkdir(parents=True)
    readings = pd.read_parquet(folders.faces / "landmark_model.parquet").set_index("path")
    readings = read_units(readings)
    for path in sorted(folders.faces.glob("*-*.parquet")):
        pq.write_table(relabel(pq.read_table(path), readings), folders.output / path.name)
    provenance = Path(__file__).with_name("faces_provenance.json")
    shutil.copy(provenance, folders.output / "provenance.json")


if __name__ == "__main__":
    main()
