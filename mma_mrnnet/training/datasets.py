"""Data sets for the training loop: crops with partial labels, clips of affect, and batches."""

import hashlib
import sys
from collections.abc import Collection, Sequence
from io import BytesIO
from typing import Any

import datasets
import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mma_mrnnet.features.clip_cache import SplitRows, select_columns
from mma_mrnnet.features.records import action_unit_column, affect_arrays
from mma_mrnnet.model.clip_length import kept_indices
from mma_mrnnet.model.labels import (
    ACTION_UNITS,
    EXPRESSIONS,
    NO_CLASS,
    neutral_talkers,
    presence_target,
)
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.training.augmentation import AUGMENTATIONS, augment_crop, mixed_seed
from mma_mrnnet.video.pictures import PictureError, read_picture

ROWS = 100_000  # image names held in memory at once


class FrameDataset(Dataset):
    """Labelled face crops for stage 1, from rows with the columns of `records.frame_features`.

    `action_units` are in the model's output order. Seed, epoch and item number determine the
    augmentation of an item.
    """

    def __init__(
        self, rows: datasets.Dataset, action_units: Sequence[int] = ACTION_UNITS, *, seed: int = 0
    ) -> None:
        self.seed = seed
        self.epoch = 0
        self.talkers = 0
        columns = [action_unit_column(unit) for unit in action_units]
        table = rows.select_columns(
            ["valence", "arousal", "expression", "subject", "source", *columns]
        ).with_format("pandas")[:]
        self.action_units = tuple(action_units)
        self.images = rows.select_columns(["image"]).cast_column(
            "image", datasets.Image(decode=False)
        )
        self.sources: list[str] = list(
            map(sys.intern, table["source"].astype(str))
        )  # millions of rows, few names
        self.subjects: list[str] = list(map(sys.intern, table["subject"].astype(str)))
        self.valence_arousal = torch.from_numpy(
            table[["valence", "arousal"]].to_numpy(np.float32, copy=True)
        )  # (N, 2)
        self.expression = torch.from_numpy(
            table["expression"].to_numpy(np.int64, copy=True)
        )  # (N,)
        self.intensity = torch.from_numpy(table[columns].to_numpy(np.float32, copy=True))  # (N, A)

    def __len__(self) -> int:
        return len(self.images)

    def keep_labels(self, channels: Sequence[str]) -> None:
        """Remove all labels except those of the given `CHANNELS`."""
        if "valence_arousal" not in channels:
            self.valence_arousal.fill_(torch.nan)
        if "expressions" not in channels:
            self.expression.fill_(NO_CLASS)
        if "action_units" not in channels:
            self.intensity.fill_(torch.nan)

    def label_talkers(self, sources: Collection[str]) -> None:
        """Label the `neutral_talkers` of some sources as neutral and calm, and count them."""
        talks = neutral_talkers(self.intensity, self.action_units) & (self.expression == NO_CLASS)
        talks &= torch.tensor([source in sources for source in self.sources])
        self.expression[talks] = EXPRESSIONS.index("neutral")
        self.valence_arousal[talks] = self.valence_arousal[talks].nan_to_num(0.0)
        self.talkers = int(talks.sum())

    def fingerprint(self) -> str:
        """Return a digest of labels, sources and image names."""
        digest = hashlib.sha256()
        for labels in (self.valence_arousal, self.expression, self.intensity):
            digest.update(labels.numpy().tobytes())
        paths = self.images.with_format("arrow")
        for first in range(0, len(self), ROWS):
            names = pc.struct_field(paths[first : first + ROWS]["image"], "path").to_pylist()
            lines = map("{}\0{}".format, self.sources[first : first + ROWS], names)
            digest.update("\n".join(lines).encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def begin_epoch(self, epoch: int) -> None:
        """Set the epoch for augmentation; call it before a loader's workers start."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one crop (H, W, 3) uint8 with its labels and augmentation seed.

        An unreadable image raises OSError; the message starts with its path.
        """
        stored = self.images[index]["image"]
        source = BytesIO(stored["bytes"]) if stored["bytes"] is not None else stored["path"]
        name = stored["path"] or f"row {index}"
        try:
            crop = read_picture(source, name)
        except PictureError as error:
            raise OSError(str(error)) from error
        except FileNotFoundError as error:
            raise OSError(f"{name}: no such file") from error
        return {
            "crop": torch.from_numpy(crop),
            "valence_arousal_labels": self.valence_arousal[index],
            "expression_labels": self.expression[index],
            "action_unit_intensities": self.intensity[index],
            "augmentation_seed": mixed_seed(self.seed, self.epoch, index),
        }


class FrameCollator:
    """Stack crops into the input of `MMAModel.forward`, with optional augmentation.

    `augmentations` are names from `AUGMENTATIONS`, for training only; others raise ValueError.
    With `pairs`, each crop gives two neighbouring rows, augmented apart, and `copy_labels`.
    """

    def __init__(
        self,
        processor: MMAMRNNetVideoProcessor,
        *,
        augmentations: Sequence[str] = (),
        pairs: bool = False,
    ) -> None:
        unknown = [kind for kind in augmentations if kind not in AUGMENTATIONS]
        if unknown:
            raise ValueError(
                f"augmentations must be among {', '.join(AUGMENTATIONS)}; got {', '.join(unknown)}"
            )
        self.processor = processor
        self.augmentations = frozenset(augmentations)
        self.pairs = pairs

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Return `pixel_values` and three label tensors of N items; crop sizes may differ."""
        if self.pairs:
            copies = torch.arange(len(items)).repeat_interleave(2)
            seeds = [mixed_seed(item["augmentation_seed"], 1) for item in items]
            seconds = [
                {**item, "augmentation_seed": seed} for item, seed in zip(items, seeds, strict=True)
            ]
            items = [item for pair in zip(items, seconds, strict=True) for item in pair]
            return {**self._collate(items), "copy_labels": copies}
        return self._collate(items)

    def _collate(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        crops = [item["crop"] for item in items]
        if len({crop.shape for crop in crops}) == 1:
            pixel_values = self.processor.scale(torch.stack(crops))  # (N, 3, S, S)
        else:
            pixel_values = torch.cat(
                [self.processor.scale(crop[None]) for crop in crops]
            )  # (N, 3, S, S)
        if self.augmentations:
            seeds = [item["augmentation_seed"] for item in items]
            pixel_values = torch.stack(
                [self._augmented(*pair) for pair in zip(pixel_values, seeds, strict=True)]
            )
        return {
            "pixel_values": pixel_values,
            "valence_arousal_labels": torch.stack(
                [item["valence_arousal_labels"] for item in items]
            ),
            "expression_labels": torch.stack([item["expression_labels"] for item in items]),
            "action_unit_labels": presence_target(
                torch.stack([item["action_unit_intensities"] for item in items])
            ),
        }

    def _augmented(self, pixels: Tensor, seed: int) -> Tensor:
        return augment_crop(pixels, self.augmentations, torch.Generator().manual_seed(seed))


class ClipDataset(Dataset):
    """N clips of affect or of other features, for stage 2.

    Args:
        clip_ids: names.
        subjects: people; empty strings where unknown.
        kinds: `reaction`, or another kind of clip.
        labels: (N, K) float32, NaN if unlabelled.
        frames: one (L, A) float32 array per clip, unpadded, in memory or on disk.
        lengths: (N,) frames per clip; None counts them.
    """

    def __init__(
        self,
        clip_ids: Sequence[str],
        subjects: Sequence[str],
        kinds: Sequence[str],
        labels: np.ndarray,
        frames: Sequence[np.ndarray],
        lengths: np.ndarray | None = None,
    ) -> None:
        self.clip_ids, self.subjects, self.kinds = list(clip_ids), list(subjects), list(kinds)
        self.lengths = np.array([*map(len, frames)], np.int64) if lengths is None else lengths
        self._labels, self._frames = labels, frames

    @classmethod
    def from_rows(cls, rows: datasets.Dataset) -> "ClipDataset":
        """Build from a data set with the columns of `records.clip_features`."""
        num_labels = rows.features["labels"].length
        labels = np.array(rows["labels"][:], np.float32).reshape(len(rows), num_labels)
        ids, subjects, kinds = (rows[name][:] for name in ("clip_id", "subject", "kind"))
        return cls(ids, subjects, kinds, labels, affect_arrays(rows))

    @classmethod
    def from_files(cls, split: SplitRows, count: int | None = None) -> "ClipDataset":
        """Build from the first `count` clips of a split in files (None: all)."""
        clips = split.clips[:count]
        labels = np.array([[*clip.labels.values()] for clip in clips], np.float32)
        return cls(
            [clip.clip_id for clip in clips],
            [clip.subject for clip in clips],
            ["reaction"] * len(clips),
            labels.reshape(len(clips), len(split.targets)),
            split.rows[:count],
            split.lengths[:count],
        )

    def __len__(self) -> int:
        return len(self.clip_ids)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return copies: `affect` (L, A) float32, unpadded, and `labels` (K,) float32."""
        return {"affect": self._frames[index].copy(), "labels": self._labels[index].copy()}

    def __getitems__(self, indices: list[int]) -> list[dict[str, np.ndarray]]:
        return [self[index] for index in indices]

    def select_columns(self, columns: list[int]) -> "ClipDataset":
        """Return the same clips with only these columns of their frames."""
        frames = select_columns(self._frames, columns)
        return ClipDataset(
            self.clip_ids, self.subjects, self.kinds, self._labels, frames, self.lengths
        )

    @property
    def frames(self) -> Sequence[np.ndarray]:
        """One read-only (L, A) float32 array per clip."""
        return self._frames

    @property
    def labels(self) -> Tensor:
        """(N, K) float32 labels of all clips."""
        return torch.from_numpy(self._labels.copy())


class ClipCollator:
    """Pad or shorten clips into the input of `MMAMRNNetForIntensity.forward`."""

    def __init__(self, processor: MMAMRNNetVideoProcessor) -> None:
        self.processor = processor

    def __call__(self, items: list[dict[str, np.ndarray]]) -> dict[str, Tensor]:
        """Return `affect`, `frame_mask` and `labels` of B items."""
        clips = [np.asarray(item["affect"], np.float32) for item in items]
        # Shorten here: `pad` would warn for each batch, but training warns once for all clips.
        most, policy = self.processor.num_frames, self.processor.length_policy
        kept = [
            clip[kept_indices(len(clip), most, policy)] if len(clip) > most else clip
            for clip in clips
        ]
        affect, frame_mask = self.processor.pad(kept)
        labels = torch.from_numpy(
            np.stack([np.asarray(item["labels"], np.float32) for item in items])
        )
        return {"affect": affect, "frame_mask": frame_mask, "labels": labels}
