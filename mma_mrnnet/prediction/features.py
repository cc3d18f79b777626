"""A table of features -> a VideoPrediction."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.prediction.checkpoint import checked_pair, stage_2_config
from mma_mrnnet.prediction.outputs import outputs_of
from mma_mrnnet.prediction.result import NO_ROW, VideoPrediction, shown
from mma_mrnnet.tables import ROW_COLUMNS, TABLE_SUFFIX, exactly, read_feature_table


def predict_table(
    path: str | os.PathLike[str], model: MMAMRNNetForIntensity, processor: MMAMRNNetVideoProcessor
) -> VideoPrediction:
    """The intensities of a clip whose frames are a table of features.

    The table is read as in training (see `read_feature_table`): the columns that the model names, one person, the
    model's frame rate where there are time stamps.

    Args:
        path: a CSV file.
        model: a stage-2 model with `config.feature_names`.
        processor: the model's processor.

    Returns:
        A `VideoPrediction`, its `frames` the rows that were used. A table without a usable row has NaN intensities and
        says so in `error`.

    Raises:
        ValueError: a model that reads no tables, a column that is missing, a table that cannot be read.
    """
    model, processor = checked_pair(model, processor)
    config = stage_2_config(model)
    if config.feature_names is None:
        raise ValueError(
            f"{path}: this model reads videos, not tables; a model trained on such tables is needed"
        )
    if Path(path).suffix.lower() != TABLE_SUFFIX:
        raise ValueError(
            f"{path}: this model reads tables of features ({TABLE_SUFFIX}); a video needs another model"
        )
    table = read_feature_table(path, exactly(config.feature_names), config.sampling_fps)
    used, left_out = len(table.values), table.frames_sampled - len(table.values)
    frames = pd.DataFrame(table.values, columns=list(table.names))
    times = np.full(used, np.nan) if table.times_s is None else table.times_s.round(6)
    for place, values in enumerate((shown(str(path)), 0, table.frames, times, np.ones(used, bool))):
        frames.insert(place, ROW_COLUMNS[place], values)
    outputs = outputs_of(table.values, np.asarray(table.frames), times, model, processor)
    lost = (
        f"{left_out} of {table.frames_sampled} frames left out: no face, or a number missing"
        if left_out
        else None
    )
    return VideoPrediction(
        file=str(path),
        intensities=outputs.intensities,
        frames=frames,
        duration_s=table.duration_s,
        error=None if used else NO_ROW,
        warning="; ".join(part for part in (lost, outputs.caution) if part) or None,
        calibrated=config.calibrated,
        relative=config.relative_labels,
        simulated=config.simulated_labels,
        moments=outputs.moments,
        constant=outputs.constant,
        running=outputs.running,
    )
