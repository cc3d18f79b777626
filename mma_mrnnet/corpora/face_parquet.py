"""Labelled face crops in `train-*.parquet` and `validation-*.parquet`, as on the Hub."""

from collections.abc import Collection, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.exceptions import DatasetGenerationError

from mma_mrnnet.corpora.frame_tables import check_people_apart
from mma_mrnnet.features.records import FRAME_SPLITS, action_unit_column, frame_features
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, NO_CLASS


def load_face_parquet(
    folder: str | Path,
    action_units: Sequence[int] = ACTION_UNITS,
    required: Collection[str] = FRAME_SPLITS,
) -> datasets.DatasetDict:
    """Read `train-*.parquet` and `validation-*.parquet` with columns `records.frame_features`.

    A missing label is NaN, null or a negative class. Other columns are ignored. `provenance.json`
    may declare the sources, see `declared_provenance`. Splits that are not `required` may be
    missing.

    Raises:
        ValueError: a required split is missing, a file or column is unreadable, a label is out
            of range, or a subject is in both splits.
    """
    folder = Path(folder)
    files = {split: sorted(map(str, folder.glob(f"{split}-*.parquet"))) for split in FRAME_SPLITS}
    for split, found in files.items():
        if not found and split in required:
            raise ValueError(
                f"{folder}: no {split}-*.parquet here; {' and '.join(required)} needed"
            )
    files = {split: found for split, found in files.items() if found}
    features = frame_features(action_units)
    for path in (path for found in files.values() for path in found):
        _check_columns(path, features)
    try:
        raw = datasets.load_dataset(
            "parquet", data_files=files, features=features, columns=list(features)
        )
    except DatasetGenerationError as error:
        raise ValueError(
            f"{folder}: not readable as labelled crops: {error.__cause__ or error}"
        ) from error
    splits = datasets.DatasetDict(
        {split: _check_labels(raw[split], f"{folder}: {split}", action_units) for split in files}
    )
    check_people_apart(splits, folder)
    return splits


def _check_columns(path: str, features: datasets.Features) -> None:
    """Check that no column is missing: `load_dataset` would fill it with nulls."""
    try:
        columns = pq.read_schema(path).names
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: not a parquet file: {error}") from error
    missing = [name for name in features if name not in columns]
    if missing:
        raise ValueError(f"{path}: columns {missing} are missing; found {columns}")


def _check_labels(
    dataset: datasets.Dataset, place: str, action_units: Sequence[int]
) -> datasets.Dataset:
    """Check label ranges; return the split with -100 for "no expression"."""
    table = dataset.remove_columns("image").with_format("pandas")[:]
    for name in ("valence", "arousal", *map(action_unit_column, action_units)):
        least = -1.0 if name in ("valence", "arousal") else 0.0
        outside = table[name].notna() & ~table[name].between(least, 1.0)
        if outside.any():
            row = int(outside.idxmax())
            raise ValueError(
                f"{place}: {name} must be in [{least:g}, 1]; row {row} has {table[name][row]}"
            )
    if (table["expression"] >= len(EXPRESSIONS)).any():
        row = int((table["expression"] >= len(EXPRESSIONS)).idxmax())
        raise ValueError(
            f"{place}: expression must be below {len(EXPRESSIONS)}; "
            f"row {row} has {table['expression'][row]}"
        )
    expression = table["expression"].fillna(NO_CLASS).astype("int64")
    labels = expression.where(expression >= 0, NO_CLASS)
    return dataset.remove_columns("expression").add_column("expression", labels.to_numpy())
