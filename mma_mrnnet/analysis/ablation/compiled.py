"""Clips padded once for a whole run: a hundred runs would otherwise pad the same clips again in every epoch."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset

from mma_mrnnet.training.datasets import ClipDataset
from mma_mrnnet.training.stages import Stage

Batch = dict[str, Tensor]

LARGEST_BYTES = 5e8
"""Of a split's padded clips in memory; larger splits are read and padded batch by batch, as in any training."""

PART = 256


class CompiledClips(Dataset):
    """All clips of a split as one batch in memory, from which batches are cut out by number.

    Args:
        clips: of affect.
        collator: makes a batch of some items; the same numbers come out as if it had made each batch.
    """

    def __init__(self, clips: ClipDataset, collator: Callable[[list], Batch]) -> None:
        parts = [
            collator(clips.__getitems__([*range(first, min(first + PART, len(clips)))]))
            for first in range(0, len(clips), PART)
        ]
        self.batch: Batch = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def __len__(self) -> int:
        return len(self.batch["labels"])

    def __getitem__(self, index: int) -> Batch:
        """A batch of one clip."""
        return self.__getitems__([range(len(self))[index]])

    def __getitems__(self, indices: list[int]) -> Batch:
        """A batch; the loader's `collate_fn` has nothing left to do."""
        return {name: values[torch.tensor(indices)] for name, values in self.batch.items()}


class ReadyOr:
    """Passes on what is a batch already, and lets a collator make one of the rest."""

    def __init__(self, collator: Callable[[list], Batch]) -> None:
        self.collator = collator

    def __call__(self, items: list | Batch) -> Batch:
        """A batch."""
        return items if isinstance(items, dict) else self.collator(items)


def compile_clips(stage: Stage) -> None:
    """Pads a stage's training and validation clips once, if memory allows."""
    collator = stage.collator
    for name in ("train", "validation"):
        clips = getattr(stage, name)
        if padded_bytes(clips, stage.processor.num_frames) <= LARGEST_BYTES:
            setattr(stage, name, CompiledClips(clips, collator))
    stage.train_collator = stage.collator = ReadyOr(collator)


def padded_bytes(clips: ClipDataset, num_frames: int) -> float:
    """Size of all clips, padded, in memory."""
    width = clips[0]["affect"].shape[1] if len(clips) else 0
    return 4.0 * len(clips) * num_frames * width
