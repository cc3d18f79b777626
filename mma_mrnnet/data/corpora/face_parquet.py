"""Labelled face crops in `train-*.parquet` and `validation-*.parquet`, as a Hub data set of images stores them."""

from pathlib import Path

import datasets

from mma_mrnnet.data.records import action_unit_column, frame_features
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, NO_CLASS

SPLITS = ("train", "validation")


def load_face_parquet(folder: str | Path) -> datasets.DatasetDict:
    """Train and validation rows of a folder of parquet files with the columns of `records.frame_features`.

    A missing label may be written as NaN or null (real values), or as any negative class id.

    Args:
        folder: holds `train-*.parquet` and `validation-*.parquet`.

    Returns:
        A `DatasetDict` with the two splits; further columns of the files are left out.

    Raises:
        ValueError: a split's files, a column, or a subject in both splits; the message names it.
    """
    folder = Path(folder)
    files = {split: sorted(map(str, folder.glob(f"{split}-*.parquet"))) for split in SPLITS}
    for split, found in files.items():
        if not found:
            raise ValueError(f"{folder}: no {split}-*.parquet here; both splits are needed")
    raw = datasets.load_dataset("parquet", data_files=files)
    splits = datasets.DatasetDict({split: _checked(raw[split], folder) for split in SPLITS})
    both = set(splits["train"]["subject"]) & set(splits["validation"]["subject"])
    if both:
        raise ValueError(f"{folder}: {len(both)} subjects are in both splits, for example {min(both)!r}")
    return splits


def _checked(dataset: datasets.Dataset, folder: Path) -> datasets.Dataset:
    """The split with our columns only, its labels in range and in our way of writing "none"."""
    features = frame_features()
    missing = [name for name in features if name not in dataset.column_names]
    if missing:
        raise ValueError(f"{folder}: columns {missing} are missing; found {dataset.column_names}")
    dataset = dataset.select_columns(list(features))
    table = dataset.select_columns([name for name in features if name != "image"]).with_format("pandas")[:]
    for name in ("valence", "arousal", *map(action_unit_column, ACTION_UNITS)):
        least = -1.0 if name in ("valence", "arousal") else 0.0
        outside = table[name].notna() & ~table[name].between(least, 1.0)
        if outside.any():
            row = int(outside.idxmax())
            raise ValueError(f"{folder}: {name} must be in [{least:g}, 1]; row {row} has {table[name][row]}")
    if (table["expression"] >= len(EXPRESSIONS)).any():
        row = int((table["expression"] >= len(EXPRESSIONS)).idxmax())
        raise ValueError(
            f"{folder}: expression must be below {len(EXPRESSIONS)}; row {row} has {table['expression'][row]}"
        )
    expression = table["expression"].fillna(NO_CLASS).astype("int64")
    labels = expression.where(expression >= 0, NO_CLASS)
    return dataset.remove_columns("expression").add_column("expression", labels.to_numpy())
