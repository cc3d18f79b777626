"""Made-up corpora as `datasets` builders, and as folders with a card for the Hub."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from numbers import Integral
from pathlib import Path
from typing import Any

import cv2
import datasets
import numpy as np
import torch
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from mma_mrnnet.features.records import CLIP_SPLITS, action_unit_column, affect_arrays
from mma_mrnnet.files import (
    check_new_folder,
    content_digest,
    file_digest,
    replaced_folder,
    write_json,
)
from mma_mrnnet.hub.cards import package_version, template_folder
from mma_mrnnet.model.labels import (
    ACTION_UNITS,
    EXPRESSIONS,
    PRESENT_INTENSITY,
    REACTIONS,
    action_unit_name,
    affect_names,
    is_present,
)
from mma_mrnnet.synthetic.domains import FPS, domain_named
from mma_mrnnet.synthetic.drawn_faces import PROVENANCE, SIZE, draw_rows, drawn_faces
from mma_mrnnet.synthetic.extractor_noise import ExtractorNoise
from mma_mrnnet.synthetic.reactions import (
    HUME_COUNTS,
    SimulatedClip,
    describe_simulated,
    hume_like_splits,
)


class _MadeUpCorpus(datasets.GeneratorBasedBuilder):
    """A corpus with its own cache; a change of code or settings makes it anew."""

    def __init__(self, cache_dir: str | None = None, **settings: Any) -> None:
        # The library's name and hash are the same for both corpora.
        own = {"dataset_name": type(self).__name__, "hash": _digest_of_code()}
        super().__init__(cache_dir, **{**own, **settings})

    def load(self) -> datasets.DatasetDict:
        """Return all splits, memory-mapped; generate them if they are not cached."""
        self.download_and_prepare()
        return self.as_dataset()


@functools.cache
def _digest_of_code() -> str:
    """Return a digest of the code and library versions that a corpus depends on."""
    package = Path(str(files("mma_mrnnet")))
    modules = [
        *sorted((package / "synthetic").glob("*.py")),
        package / "features" / "records.py",
        package / "model" / "labels.py",
        package / "model" / "priors.py",
    ]
    return content_digest(np.__version__, cv2.__version__, [file_digest(path) for path in modules])


# Simulated reactions -----------------------------------------------------------------------------


@dataclass
class SimulatedReactionsConfig(datasets.BuilderConfig):
    """Settings of `SimulatedReactions`, as in `hume_like_splits`; ValueError if out of range.

    A split with 0 `counts` is omitted. `noise` is needed by the domain `measured`, refused by
    others.
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
        are_whole = all(isinstance(count, Integral) and count >= 0 for count in self.counts)
        if len(self.counts) != len(CLIP_SPLITS) or not are_whole or not any(self.counts):
            raise ValueError(
                f"counts must be three whole numbers from 0 on, not all 0; got {self.counts}"
            )
        self.clips({})  # simulates no clip, but checks the settings before anything is written

    def clips(self, counts: dict[str, int]) -> dict[str, list[SimulatedClip]]:
        """Simulate clips with these settings; a split without a count is empty."""
        train, validation, test = (counts.get(split, 0) for split in CLIP_SPLITS)
        return hume_like_splits(
            self.seed,
            (train, validation, test),
            quiet_share=self.quiet_share,
            short_share=self.short_share,
            fps=self.fps,
            domain=self.domain,
            noise=self.noise,
        )


class SimulatedReactions(_MadeUpCorpus):
    """Simulated clips shaped like Hume-Reaction's, bit-identical to `hume_like_splits`.

    Use `SimulatedReactions(counts=(800, 200, 200), seed=1).load()`, or the library's
    `download_and_prepare`, `as_dataset` and `as_streaming_dataset` (a stream simulates a whole
    split before its first row). `settings` are fields of `SimulatedReactionsConfig` and
    arguments of `datasets.DatasetBuilder`; `cache_dir` defaults to the library's.
    """

    BUILDER_CONFIG_CLASS = SimulatedReactionsConfig

    @property
    def fps(self) -> float:
        """Return the frame rate of the clips."""
        return domain_named(self.config.domain).rate(self.config.fps)

    def _info(self) -> datasets.DatasetInfo:
        return describe_simulated(self.fps)

    def _split_generators(self, dl_manager: object) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(split, gen_kwargs={"split": split, "count": count})
            for split, count in zip(CLIP_SPLITS, self.config.counts, strict=True)
            if count
        ]

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[int, dict]]:
        for index, clip in enumerate(self.config.clips({split: count})[split]):
            yield index, {column: getattr(clip, column) for column in self.info.features}


# Drawn faces -------------------------------------------------------------------------------------


@dataclass
class DrawnFacesConfig(datasets.BuilderConfig):
    """Settings of `DrawnFaces`; ValueError if out of range.

    Attributes:
        items: training faces; validation has a fifth as many, of other people.
        size: image side in pixels, at least 16.
        one_kind: whether each training face has one kind of label, as in separate corpora.
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
    """Drawn faces with partial labels, bit-identical to `train.py --stage mma --data drawn`.

    Use `DrawnFaces(items=200, size=64).load()`, or the library's `download_and_prepare`,
    `as_dataset` and `as_streaming_dataset` (which draws each face on access). `settings` are
    fields of `DrawnFacesConfig` and arguments of `datasets.DatasetBuilder`; `cache_dir`
    defaults to the library's.
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
        yield from enumerate(draw_rows(count, seed=seed, size=self.config.size, one_kind=one_kind))


def drawn_splits(items: int, seed: int) -> dict[str, tuple[int, int]]:
    """Return (rows, seed) of train and validation (a fifth as many rows, other people)."""
    return {"train": (items, seed), "validation": (max(items // 5, 1), seed + 1)}


# Folders for the Hub -----------------------------------------------------------------------------

# Size classes of the Hub, each ten times the previous one.
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M")


def export_dataset(builder: SimulatedReactions | DrawnFaces, folder: str | Path) -> Path:
    """Write `data/SPLIT-00000-of-00001.parquet` and a complete card; return the folder.

    `load_dataset(folder)` then returns the rows and columns of `builder.load()`, also after a
    push to the Hub. The folder must be missing or empty (else ValueError), and appears only
    when complete.
    """
    folder = Path(folder)
    check_new_folder(folder)
    splits = builder.load()
    with replaced_folder(folder) as staging:
        (staging / "data").mkdir()
        for split, rows in splits.items():
            rows.to_parquet(staging / _file_of(split))
        if isinstance(builder, DrawnFaces):
            sources = sorted(set(splits["train"]["source"]))
            provenance = [replace(PROVENANCE, name=source).to_json() for source in sources]
            write_json(staging / "data" / "provenance.json", provenance)
        (staging / "README.md").write_text(dataset_card(builder, splits), encoding="utf-8")
    return folder


def dataset_card(builder: SimulatedReactions | DrawnFaces, splits: datasets.DatasetDict) -> str:
    """Return the card; its numbers are settings or counts from `splits`."""
    rows = sum(split.num_rows for split in splits.values())
    simulated = isinstance(builder, SimulatedReactions)
    data = DatasetCardData(
        pretty_name="Simulated reactions" if simulated else "Drawn faces",
        license="apache-2.0",
        annotations_creators="machine-generated",
        source_datasets=["original"],
        task_categories=["tabular-regression" if simulated else "image-classification"],
        size_categories=SIZES[min(max(len(str(rows)) - 3, 0), len(SIZES) - 1)],
        tags=["synthetic", "simulated", "affective-computing", "facial-expression", "action-units"],
    )
    files = [{"split": split, "path": _file_of(split)} for split in splits]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(data)
    info = datasets.DatasetInfo(features=builder.info.features)
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    own = type(builder.config).__annotations__
    settings = {name: getattr(builder.config, name) for name in own}
    given = {name: value for name, value in settings.items() if value is not None}
    call = ", ".join(f"{name}={value!r}" for name, value in given.items())
    count = _count_reactions if isinstance(builder, SimulatedReactions) else _count_faces
    words = (
        _describe_reactions(builder)
        if isinstance(builder, SimulatedReactions)
        else {"present": PRESENT_INTENSITY}
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(template_folder("hub_cards") / f"{builder.dataset_name}.md"),
        call=call,
        settings=settings,
        version=package_version(),
        splits={split: count(rows) for split, rows in splits.items()},
        **words,
    )
    return str(card)


def _file_of(split: str) -> str:
    return f"data/{split}-00000-of-00001.parquet"


def _describe_reactions(builder: SimulatedReactions) -> dict[str, Any]:
    domain = domain_named(builder.config.domain)
    return {
        "domain": domain.what,
        "fps": builder.fps,
        "reactions": REACTIONS,
        "affect": affect_names(),
    }


def _count_reactions(rows: datasets.Dataset) -> dict[str, Any]:
    """Count clips, people, lengths and the labels of each reaction, for the card."""
    frames = np.array([len(clip) for clip in affect_arrays(rows)])
    labels = np.array(rows.with_format("numpy")["labels"][:])  # (N, 7)
    reacting = labels[np.array(rows["kind"][:]) == "reaction"]
    return {
        "rows": len(rows),
        "people": len(set(rows["subject"])),
        "quiet": len(rows) - len(reacting),
        "frames": (int(frames.min()), float(np.median(frames)), int(frames.max())),
        "labels": {
            name: {
                "mean": column.mean(),
                "deviation": column.std(),
                "zero": (column == 0).mean(),
                "one": (column == 1).mean(),
            }
            for name, column in zip(REACTIONS, reacting.T, strict=True)
            if len(column)
        },
    }


def _count_faces(rows: datasets.Dataset) -> dict[str, Any]:
    """Count faces with each kind of label, expression and unit, for the card."""
    columns = {action_unit_name(unit): action_unit_column(unit) for unit in ACTION_UNITS}
    names = ["expression", "valence", *columns.values()]
    table = rows.select_columns(names).with_format("pandas")[:]
    units = table[list(columns.values())]
    return {
        "rows": len(rows),
        "labelled": {
            "expression": int((table["expression"] >= 0).sum()),
            "valence and arousal": int(table["valence"].notna().sum()),
            "action units": int(units.notna().all(axis=1).sum()),
        },
        "expressions": {
            name: int((table["expression"] == number).sum())
            for number, name in enumerate(EXPRESSIONS)
        },
        "units": {
            name: int(is_present(torch.from_numpy(units[column].to_numpy(copy=True))).sum())
            for name, column in columns.items()
        },
    }
