"""What stage 2 makes of one person's affect over a clip: the intensities, and how they came about."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor, kept_indices

FEW_FRAMES = 4  # 2 s: a recurrent network has seen hardly anything below (our choice)
CLIPS_AT_ONCE = 64  # beginnings of a clip that go through the network at once: small memory


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
    names = list(model.config.label_names)
    kept = kept_indices(len(affect), processor.num_frames, processor.length_policy).numpy()
    contributions = so_far = np.zeros((0, len(names)), np.float32)
    intensities, constant = dict.fromkeys(names, float("nan")), {}
    if len(affect):
        values, frame_mask = (
            part.to(model.device) for part in processor.pad([affect])
        )  # (1, T, A), (1, T)
        with torch.inference_mode():
            output = model(affect=values, frame_mask=frame_mask)
            contributions, constant = _contributions(model, values, frame_mask)
            so_far = _so_far(model, values, frame_mask)
        intensities = dict(zip(names, output.intensities[0].float().tolist(), strict=True))
    read = pd.DataFrame({"frame": numbers[kept], "time_s": times_s[kept]})
    return Outputs(
        intensities=intensities,
        moments=read.join(pd.DataFrame(contributions, columns=names)),
        constant=constant,
        running=read[["time_s"]].join(pd.DataFrame(so_far, columns=names)),
        caution=_caution(len(affect), processor),
    )


def _contributions(
    model: MMAMRNNetForIntensity, affect: Tensor, frame_mask: Tensor
) -> tuple[np.ndarray, dict[str, float]]:
    """(n, K) of the n frames that are real, and the constants by name.

    NaN and none of a model whose own code cannot tell, or whose GRU reads padding too, which then adds something.
    """
    names, frames = model.config.label_names, int(frame_mask.sum())
    if not hasattr(model, "frame_contributions") or model.config.temporal_pooling == "padded":
        return np.full((frames, len(names)), np.nan, np.float32), {}
    found = model.frame_contributions(affect=affect, frame_mask=frame_mask)
    constant = dict(zip(names, found.constant[0].float().tolist(), strict=True))
    return found.contributions[0, :frames].float().cpu().numpy(), constant


def _so_far(model: MMAMRNNetForIntensity, affect: Tensor, frame_mask: Tensor) -> np.ndarray:
    """(n, K) the intensities of the first frame, of the first two, ... of all n that are real."""
    frames, most = int(frame_mask.sum()), frame_mask.shape[1]
    lengths = torch.arange(1, frames + 1, device=frame_mask.device)
    rows = []
    for part in lengths.split(CLIPS_AT_ONCE):
        masks = torch.arange(most, device=part.device) < part.unsqueeze(1)  # (n, T)
        values = torch.where(
            masks.unsqueeze(-1), affect, 0.0
        )  # (n, T, A), padded as a clip of that length is
        rows.append(model(affect=values, frame_mask=masks).intensities.float().cpu().numpy())
    return np.concatenate(rows)


def _caution(faces: int, processor: MMAMRNNetVideoProcessor) -> str | None:
    """What to say of a clip with more frames with a face than the model takes, or with hardly any."""
    if faces > processor.num_frames:
        return f"{faces} frames with a face {processor.shortened()} {processor.num_frames}"
    if 0 < faces < FEW_FRAMES:
        return f"rests on {faces} frame{'s' * (faces > 1)} with a face: hardly a clip"
    return None
