"""New stage-2 models: around a stage-1 checkpoint, or for tables of features without an extractor."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from mma_mrnnet.model.configuration_mma_mrnnet import MMAMRNNetConfig
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.clip_corpora import ClipCorpus
from mma_mrnnet.training.datasets import ClipDataset

PART = 256  # clips that memory holds while the scaling is fitted


def around_extractor(
    args: TrainArguments, corpus: ClipCorpus
) -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """A new stage-2 model around the stage-1 checkpoint `args.mma`, and its processor."""
    try:
        model = MMAMRNNetForIntensity.from_mma_pretrained(args.mma, **_recurrent_part(args, corpus))
        processor = MMAMRNNetVideoProcessor.from_pretrained(args.mma, **_lengths(args))
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"--mma {args.mma}: not a checkpoint that can be loaded: {error}"
        ) from error
    model.config.mma_config._name_or_path = ""  # a place on this machine, and config.json travels
    return model, processor


def for_features(
    args: TrainArguments, corpus: ClipCorpus, features: list[str], train: ClipDataset
) -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor]:
    """A new stage-2 model without an extractor, scaled on the training clips, and a processor that pads for it."""
    model = MMAMRNNetForIntensity(
        MMAMRNNetConfig(feature_names=features, **_recurrent_part(args, corpus))
    )
    model.set_feature_scaling(*feature_scaling(train))
    return model, MMAMRNNetVideoProcessor(**_lengths(args))


def _lengths(args: TrainArguments) -> dict[str, Any]:
    """The processor's settings that say how long its clips become, and at which rate it samples videos of crops."""
    return {
        "num_frames": args.num_frames,
        "fps": args.sampling_fps,
        "length_policy": args.length_policy,
    }


def _recurrent_part(args: TrainArguments, corpus: ClipCorpus) -> dict[str, Any]:
    """The fields of `MMAMRNNetConfig` that say nothing of what its frames are."""
    return {
        "channels": args.channels,
        "num_frames": args.num_frames,
        "sampling_fps": args.sampling_fps,
        "hidden_size": args.hidden_size,
        "num_hidden_layers": args.num_layers,
        "temporal_pooling": args.temporal_pooling,
        "dense_size": args.dense_size,
        "dropout": args.dropout,
        "intensity_loss": args.intensity_loss,
        "id2label": dict(enumerate(corpus.names)),
        "label2id": {name: number for number, name in enumerate(corpus.names)},
        "relative_labels": corpus.relative_labels,
        "simulated_labels": corpus.simulated_labels,
    }


def feature_scaling(clips: ClipDataset) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each feature over the frames of all clips; 1 for a feature that never changes.

    Returns:
        mean and scale, (F,) float32 each.
    """
    sums, count, low, high = 0.0, 0, np.inf, -np.inf
    for frames in _parts(clips):
        sums, count = sums + frames.sum(0, dtype=np.float64), count + len(frames)
        low, high = np.minimum(low, frames.min(0)), np.maximum(high, frames.max(0))
    mean = sums / count
    squares = sum(((frames - mean) ** 2).sum(0) for frames in _parts(clips))
    scale = torch.from_numpy(np.sqrt(squares / count)).float()
    changes = torch.from_numpy(high > low)
    return torch.from_numpy(mean).float(), torch.where(changes & (scale > 0), scale, 1.0)


def _parts(clips: ClipDataset) -> Iterator[np.ndarray]:
    """(frames, F) of some clips after the other: memory never holds all of them."""
    for first in range(0, len(clips), PART):
        items = clips.__getitems__([*range(first, min(first + PART, len(clips)))])
        yield np.concatenate([item["affect"] for item in items])
