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
from mma_mrnnet.training.clip_corpora import (
    ClipCorpus,
    ExtractorInput,
    LoadedClips,
    TableInput,
    load_clips,
)
from mma_mrnnet.training.datasets import ClipDataset

PART = 256  # clips that memory holds while the scaling is fitted


def new_model(
    args: TrainArguments, corpus: ClipCorpus
) -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor, LoadedClips]:
    """Create a stage-2 model for the corpus, with its processor and the clips that it reads.

    Videos, crops and simulated clips get a model around the stage-1 checkpoint `args.mma`; tables get a
    model without an extractor, whose scaling is fitted on the training clips.

    Raises:
        ValueError: no checkpoint at `args.mma`, or clips that cannot be used, see `load_clips`.
    """
    if corpus.holds_tables:
        clips = load_clips(corpus, args, TableInput(args.features))
        config = MMAMRNNetConfig(feature_names=clips.feature_names, **_recurrent_part(args, corpus))
        model = MMAMRNNetForIntensity(config)
        model.set_feature_scaling(*feature_scaling(clips.splits["train"].rows))
        return model, MMAMRNNetVideoProcessor(**_lengths(args)), clips
    try:
        model = MMAMRNNetForIntensity.from_mma_pretrained(args.mma, **_recurrent_part(args, corpus))
        processor = MMAMRNNetVideoProcessor.from_pretrained(args.mma, **_lengths(args))
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"--mma {args.mma}: not a checkpoint that can be loaded: {error}"
        ) from error
    model.config.mma_config._name_or_path = ""  # a path of this machine, and config.json travels
    return model, processor, load_clips(corpus, args, ExtractorInput(model.mma, processor))


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
