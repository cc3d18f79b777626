"""The tables that are written of predictions: their columns, and how a file comes to be."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from mma_mrnnet.model.configuration_mma_mrnnet import MMAMRNNetConfig
from mma_mrnnet.prediction.result import VideoPrediction
from mma_mrnnet.tables import ROW_COLUMNS, TABLE_SUFFIX
from mma_mrnnet.video.reading import VIDEO_SUFFIXES

BOX_NAMES = ("box_x", "box_y", "box_width", "box_height")


def frame_columns(config: MMAMRNNetConfig) -> list[str]:
    """Columns of the per-frame table: file, track, frame, time_s, face, the box, then the affect channels.

    A model that reads tables of features sees no box, and has its features in the affect's place.
    """
    return [*ROW_COLUMNS, *(BOX_NAMES if config.feature_names is None else ()), *config.input_names]


def clip_suffixes(config: MMAMRNNetConfig) -> frozenset[str]:
    """Endings, in lower case, of the files that a model's clips lie in."""
    return VIDEO_SUFFIXES if config.feature_names is None else frozenset({TABLE_SUFFIX})


def clip_table(predictions: Iterable[VideoPrediction]) -> pd.DataFrame:
    """One row a clip: file, track, duration_s, frames_sampled, frames_with_face, the intensities, error, note."""
    return pd.DataFrame([prediction.summary() for prediction in predictions])


def write_table(table: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Writes a table as .csv, .json or .parquet, beside its target and renamed.

    Raises:
        ValueError: another ending, a folder that is not there, or a path that is a folder.
    """
    path = Path(path)
    check_table_path(path)
    staging = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        if path.suffix.lower() == ".csv":
            table.to_csv(staging, index=False)
        elif path.suffix.lower() == ".json":
            table.to_json(staging, orient="records", indent=1, double_precision=6)
        else:
            table.to_parquet(staging, index=False)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def check_table_path(path: Path) -> None:
    """Raises ValueError where a table cannot be written: the ending, a folder that is not there, or a folder itself."""
    if path.suffix.lower() not in (".csv", ".json", ".parquet"):
        raise ValueError(
            f"{path}: a table is written as .csv, .json or .parquet; got {path.suffix or 'no ending'!r}"
        )
    check_place(path)


def check_place(path: Path) -> None:
    """Raises ValueError where no file can be written: a folder that is not there or takes none, or a folder itself."""
    if not path.absolute().parent.is_dir():
        raise ValueError(f"{path}: the folder {path.absolute().parent} does not exist")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder, not a file to write")
    try:
        with tempfile.TemporaryFile(dir=path.absolute().parent):
            pass
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from error
