"""Predictions for people in a video, a feature table, a photo or a live stream.

`video.py` produces a `VideoPrediction`; `result.py` holds that class and stage 2. Names are
imported on first use, so that `pipeline.py` does not import the decoder, OpenCV and pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mma_mrnnet.faces.strips import FaceSnapshot
    from mma_mrnnet.prediction.feature_table import predict_table
    from mma_mrnnet.prediction.result import (
        BOX_NAMES,
        NO_FACE,
        NO_ROW,
        VideoPrediction,
        clip_suffixes,
        clip_table,
        frame_columns,
        shown,
    )
    from mma_mrnnet.prediction.torch_engine import default_checkpoint
    from mma_mrnnet.prediction.video import predict_people, predict_video
    from mma_mrnnet.tables.cells import check_table_path, write_table

_HOMES = {
    "FaceSnapshot": "mma_mrnnet.faces.strips",
    "default_checkpoint": "mma_mrnnet.prediction.torch_engine",
    "predict_table": "mma_mrnnet.prediction.feature_table",
    "predict_people": "mma_mrnnet.prediction.video",
    "predict_video": "mma_mrnnet.prediction.video",
    "check_table_path": "mma_mrnnet.tables.cells",
    "write_table": "mma_mrnnet.tables.cells",
}

__all__ = [
    "BOX_NAMES",
    "NO_FACE",
    "NO_ROW",
    "FaceSnapshot",
    "VideoPrediction",
    "check_table_path",
    "clip_suffixes",
    "clip_table",
    "default_checkpoint",
    "frame_columns",
    "predict_people",
    "predict_table",
    "predict_video",
    "shown",
    "write_table",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "mma_mrnnet.prediction.result")), name)
