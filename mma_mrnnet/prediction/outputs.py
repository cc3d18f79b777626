"""What stage 2 makes of one person's affect over a clip: the intensities, and how they came about."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor, kept_indices

FEW_FRAMES = 4  # 2 s: a recurrent network has seen hardly anything below (our choice)


@dataclass
class Outputs:
    """Of one clip of one person; as in `VideoPrediction`.

    Attributes:
        intensities: K numbers under their label names; NaN without a frame.
        moments: a row for each frame that was read: frame, time_s and what it adds to each output before its sigmoid.
        constant: what each output holds without any frame.
        running: a row for each frame that was read: time_s and the intensities up to there.
        caution: more frames than the model takes, or hardly any, in words; or None.
    """

    intensities: dict[str, float]
    moments: pd.DataFrame
    constant: dict[str, float]
    running: pd.DataFrame
    caution: str | None


def outputs_of(
    affect: np.ndarray,
    numbers: np.ndarray,
    times_s: np.ndarray,
    model: MMAMRNNetForIntensity,
    processor: MMAMRNNetVideoProcessor,
) -> Outputs:
    """What the model says of a clip.

    Args:
        affect: (L, A) float32 of the sampled frames with a face, in time order; L may be 0.
        numbers: (L,) their numbers in the file.
        times_s: (L,) their times.
        model: a stage-2 model.
        processor: the model's processor.
    """
    names = model.config.label_names
    kept = kept_indices(len(affect), processor.num_frames, processor.length_policy).numpy()
    moments = pd.DataFrame({"frame": numbers[kept], "time_s": times_s[kept]})
    running = pd.DataFrame({"time_s": times_s[kept]})
    nothing = np.full((len(kept), len(names)), np.nan, np.float32)
    contributions, so_far = nothing, nothing  # a model whose code cannot tell leaves them so
    intensities, constant = dict.fromkeys(names, float("nan")), {}
    if len(affect):
        values, frame_mask = processor.pad([affect])  # (1, T, A), (1, T)
        with torch.inference_mode():
            output = model(affect=values.to(model.device), frame_mask=frame_mask.to(model.device))
        intensities = dict(zip(names, output.intensities[0].float().tolist(), strict=True))
    return Outputs(
        intensities,
        pd.concat([moments, pd.DataFrame(contributions, columns=list(names))], axis=1),
        constant,
        pd.concat([running, pd.DataFrame(so_far, columns=list(names))], axis=1),
        _caution(len(affect), processor),
    )


def _caution(faces: int, processor: MMAMRNNetVideoProcessor) -> str | None:
    """What to say of a clip with more frames with a face than the model takes, or with hardly any."""
    if faces > processor.num_frames:
        return f"{faces} frames with a face {processor.shortened()} {processor.num_frames}"
    if 0 < faces < FEW_FRAMES:
        return f"rests on {faces} frame{'s' * (faces > 1)} with a face: hardly a clip"
    return None
