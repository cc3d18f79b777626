"""The tables that are written of predictions: their columns."""

from collections.abc import Iterable

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
