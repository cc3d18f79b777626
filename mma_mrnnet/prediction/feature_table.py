"""Predict the intensities of a clip from a feature table."""

import os
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from mma_mrnnet.prediction.checkpoint import ModelOrName, open_stage_2
from mma_mrnnet.prediction.result import (
    NO_ROW,
    SampledAffect,
    VideoPrediction,
    predict_sampled,
    shown,
)
from mma_mrnnet.tables.features import (
    ROW_COLUMNS,
    TABLE_SUFFIXES,
    exactly,
    is_table,
    read_feature_table,
)

if TYPE_CHECKING:
    from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor


def predict_table(
    path: str | os.PathLike[str],
    model: ModelOrName,
    processor: "MMAMRNNetVideoProcessor | None" = None,
    *,
    engine: str | None = None,
    revision: str = "main",
    table_fps: float | None = None,
) -> VideoPrediction:
    """Predict the intensities of a clip whose frames are rows of a feature table.

    The table is read as in training (see `read_feature_table`): the model's columns, one
    person, resampled to the model's frame rate if there are time stamps.

    Args:
        path: a .csv, .tsv, .txt or .parquet file.
        model: a stage-2 model with `config.feature_names`, its folder or Hub repository, or an
            opened `Engine`.
        processor: required if `model` is a model object.
        engine: `onnx` or `torch`; None as in `open_engine`.
        revision: branch, tag or commit of a Hub repository.
        table_fps: rows per second of a table without times; None uses each row.

    Returns:
        A `VideoPrediction` whose `frames` are the used rows. Without a usable row, it has NaN
        intensities and an `error`.

    Raises:
        ValueError: the model reads videos, a column is missing, or the table cannot be read.
    """
    opened = open_stage_2(model, processor, engine=engine, revision=revision)
    facts = opened.facts
    if facts.feature_names is None:
        raise ValueError(
            f"{path}: this model reads videos, not tables; a model trained on such tables is needed"
        )
    if not is_table(path):
        raise ValueError(
            f"{path}: this model reads tables of features ({', '.join(TABLE_SUFFIXES)}); "
            "a video needs another model"
        )
    names = exactly(facts.feature_names)
    table = read_feature_table(path, names, facts.sampling_fps, table_fps)
    used, left_out = len(table.values), table.frames_sampled - len(table.values)
    times_s = np.full(used, np.nan) if table.times_s is None else table.times_s.round(6)
    frames = pd.DataFrame(table.values, columns=list(table.names))
    frames = frames.assign(
        file=shown(str(path)), track=0, frame=table.frames, time_s=times_s, face=True
    )
    frames = frames[[*ROW_COLUMNS, *table.names]]
    lost = None
    if left_out:
        lost = f"{left_out} of {table.frames_sampled} frames left out: no face, or a number missing"
    sampled = SampledAffect(table.values, np.asarray(table.frames), times_s)
    return predict_sampled(
        sampled,
        opened,
        file=str(path),
        frames=frames,
        duration_s=table.duration_s,
        error=None if used else NO_ROW,
        warnings=(lost, table.warning),
    )
