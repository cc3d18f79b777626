"""Made-up corpora as Hugging Face `datasets` builders: simulated reactions, drawn faces; no person is in either."""

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from numbers import Integral
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np

from mma_mrnnet.features.records import CLIP_SPLITS
from mma_mrnnet.synthetic.canvas import SIZE
from mma_mrnnet.synthetic.domains import domain_named
from mma_mrnnet.synthetic.drawn_faces import drawn_faces, drawn_rows
from mma_mrnnet.synthetic.extractor_noise import ExtractorNoise
from mma_mrnnet.synthetic.reactions import (
    FPS,
    HUME_COUNTS,
    SimulatedClip,
    hume_like_splits,
    simulated_info,
)


class _MadeUpCorpus(datasets.GeneratorBasedBuilder):
    """What both builders share: a cache of their own that code or settings which change never read again."""

    def __init__(self, cache_dir: str | None = None, **settings: Any) -> None:
        own = {
            "dataset_name": type(self).__name__,
            "hash": _digest_of_code(),
        }  # the library's own are alike for both
        super().__init__(cache_dir, **{**own, **settings})

    def load(self) -> datasets.DatasetDict:
        """All splits, memory-mapped: made now, or taken from the cache where the same were made before."""
        self.download_and_prepare()
        return self.as_dataset()


@functools.cache
def _digest_of_code() -> str:
    """Of every module that a made-up corpus may follow from, and of the libraries that draw."""
    digest = hashlib.sha256(f"numpy {np.__version__}, OpenCV {cv2.__version__}".encode())
    package = Path(str(files("mma_mrnnet")))
    for path in [
        *sorted((package / "data").glob("*.py")),
        *(package / "model" / f"{name}.py" for name in _LABELS),
    ]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


_LABELS = ("labels", "priors")

# Simulated reactions -----------------------------------------------------------------------------------------------


@dataclass
class SimulatedReactionsConfig(datasets.BuilderConfig):
    """Settings of `SimulatedReactions`; all are those of `hume_like_splits`.

    Attributes:
        seed: not negative.
        counts: clips of train, validation and test, Hume-Reaction's by default; a split of 0 is left out.
        quiet_share: share of clips without a reaction in every split.
        short_share: share of short clips in the training split.
        fps: frames a second, unless the domain has a rate of its own.
        domain: one of `synthetic.DOMAINS`; None for the usual one.
        noise: from `simulated_extractor.noise_from_errors`, for the domain `measured` and for no other.

    Raises:
        ValueError: one that is out of range.
    """

    seed: int = 0
    counts: tuple[int, int, int] = HUME_COUNTS
    quiet_share: float = 0.0
    short_share: float = 0.0
    fps: float = FPS
    domain: str | None = None
    noise: ExtractorNoise | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = all(isinstance(count, Integral) for count in self.counts)
        if (
            len(self.counts) != len(CLIP_SPLITS)
            or not whole
            or min(self.counts) < 0
            or max(self.counts) == 0
        ):
            raise ValueError(
                f"counts must be three whole numbers from 0 on, not all 0; got {self.counts}"
            )
        self.clips(
            {}
        )  # of no clip: whatever else is out of range is found here, not in the middle of writing

    def clips(self, counts: dict[str, int]) -> dict[str, list[SimulatedClip]]:
        """What `hume_like_splits` gives for these settings with other counts; a split that is not named has none."""
        return hume_like_splits(
            self.seed,
            tuple(counts.get(split, 0) for split in CLIP_SPLITS),
            quiet_share=self.quiet_share,
            short_share=self.short_share,
            fps=self.fps,
            domain=self.domain,
            noise=self.noise,
        )


class SimulatedReactions(_MadeUpCorpus):
    """Simulated clips shaped like Hume-Reaction's, bit for bit those of `hume_like_splits`.

    `SimulatedReactions(counts=(800, 200, 200), seed=1).load()` is the shortest way; `download_and_prepare`,
    `as_dataset` and `as_streaming_dataset` are the library's (a stream simulates a whole split before its first row).

    Args:
        cache_dir: where the library keeps what it made; its own place by default.
        settings: fields of `SimulatedReactionsConfig`, and whatever else a `datasets.DatasetBuilder` takes.
    """

    BUILDER_CONFIG_CLASS = SimulatedReactionsConfig

    @property
    def fps(self) -> float:
        """Frames a second of the clips."""
        return domain_named(self.config.domain).rate(self.config.fps)

    def _info(self) -> datasets.DatasetInfo:
        return simulated_info(self.fps)

    def _split_generators(self, dl_manager: object) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(split, gen_kwargs={"split": split, "count": count})
            for split, count in zip(CLIP_SPLITS, self.config.counts, strict=True)
            if count
        ]

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[int, dict]]:
        for index, clip in enumerate(self.config.clips({split: count})[split]):
            yield index, {column: getattr(clip, column) for column in self.info.features}


# Drawn faces -------------------------------------------------------------------------------------------------------


@dataclass
class DrawnFacesConfig(datasets.BuilderConfig):
    """Settings of `DrawnFaces`.

    Attributes:
        items: training faces; a fifth as many, of other people, are validation.
        seed: not negative.
        size: height and width of the images in pixels, at least 16.
        one_kind: training faces have one kind of label each, as corpora that label different things.

    Raises:
        ValueError: one that is out of range.
    """

    items: int = 2000
    seed: int = 0
    size: int = SIZE
    one_kind: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        whole = all(isinstance(number, Integral) for number in (self.items, self.seed, self.size))
        if not whole or self.items < 1 or self.seed < 0 or self.size < 16:
            raise ValueError(
                "items must be a whole number from 1 on, seed one from 0 on, size one from 16 on; "
                f"got {self.items}, {self.seed}, {self.size}"
            )


class DrawnFaces(_MadeUpCorpus):
    """Drawn faces with partial labels, bit for bit those that `train.py --stage mma --data drawn` learns from.

    `DrawnFaces(items=200, size=64).load()` is the shortest way; `download_and_prepare`, `as_dataset` and
    `as_streaming_dataset` (which draws a face when it is asked for) are the library's.

    Args:
        cache_dir: where the library keeps what it made; its own place by default.
        settings: fields of `DrawnFacesConfig`, and whatever else a `datasets.DatasetBuilder` takes.
    """

    BUILDER_CONFIG_CLASS = DrawnFacesConfig

    def _info(self) -> datasets.DatasetInfo:
        return drawn_faces(0, seed=0).info

    def _split_generators(self, dl_manager: object) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(
                split, gen_kwargs={"split": split, "count": count, "seed": seed}
            )
            for split, (count, seed) in drawn_splits(self.config.items, self.config.seed).items()
        ]

    def _generate_examples(self, split: str, count: int, seed: int) -> Iterator[tuple[int, dict]]:
        one_kind = self.config.one_kind and split == "train"
        yield from enumerate(drawn_rows(count, seed=seed, size=self.config.size, one_kind=one_kind))


def drawn_splits(items: int, seed: int) -> dict[str, tuple[int, int]]:
    """(rows, seed) of train, and of validation: a fifth as many, of other people."""
    return {"train": (items, seed), "validation": (max(items // 5, 1), seed + 1)}
