"""A video file, or a table of features -> what the model says of each person in it, and the tables written of that.

video.py reads a clip, outputs.py asks stage 2, result.py is what comes back, tables.py what is written of it.
"""

from mma_mrnnet.faces.strips import FaceSnapshot
from mma_mrnnet.prediction.checkpoint import checked_pair, default_checkpoint, stage_2_config
from mma_mrnnet.prediction.features import predict_table
from mma_mrnnet.prediction.outputs import FEW_FRAMES
from mma_mrnnet.prediction.result import NO_FACE, NO_ROW, VideoPrediction, shown
from mma_mrnnet.prediction.tables import (
    BOX_NAMES,
    clip_suffixes,
    clip_table,
    frame_columns,
)
from mma_mrnnet.prediction.video import predict_people, predict_video
from mma_mrnnet.tables import check_table_path, write_table

__all__ = [
    "BOX_NAMES",
    "FEW_FRAMES",
    "NO_FACE",
    "NO_ROW",
    "FaceSnapshot",
    "VideoPrediction",
    "check_table_path",
    "checked_pair",
    "clip_suffixes",
    "clip_table",
    "default_checkpoint",
    "frame_columns",
    "predict_people",
    "predict_table",
    "predict_video",
    "shown",
    "stage_2_config",
    "write_table",
]
