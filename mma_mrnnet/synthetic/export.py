"""A made-up corpus as a folder with its card, which `load_dataset` reads and the Hub takes as a data set repository."""

from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import torch
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from mma_mrnnet.features.records import action_unit_column, affect_arrays
from mma_mrnnet.files import replaced_folder, write_json
from mma_mrnnet.hub.card_metadata import package_version
from mma_mrnnet.hub.checkpoints import template_folder
from mma_mrnnet.model.labels import (
    ACTION_UNITS,
    EXPRESSIONS,
    PRESENT_INTENSITY,
    REACTIONS,
    action_unit_name,
    affect_names,
    is_present,
)
from mma_mrnnet.synthetic.builders import DrawnFaces, SimulatedReactions
from mma_mrnnet.synthetic.domains import domain_named
from mma_mrnnet.synthetic.drawn_faces import PROVENANCE

SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M")
"""The Hub's names for how many rows a data set has, each ten times the one before."""


def export_dataset(builder: SimulatedReactions | DrawnFaces, folder: str | Path) -> Path:
    """Writes `data/SPLIT-00000-of-00001.parquet` and a card with every number filled in.

    `load_dataset(folder)` then gives the rows and columns of `builder.load()`, here or pushed as a data set repository.

    Args:
        builder: with the settings wanted.
        folder: must not exist, or be empty.

    Returns:
        The folder, written beside its place and renamed.

    Raises:
        ValueError: a folder that holds something.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"{folder}: is here already and not an empty folder; a data set needs one of its own"
        )
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
    """The card of what a builder made: Markdown with YAML metadata, all numbers counted in `splits` or settings."""
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
    DatasetInfosDict(
        {"default": datasets.DatasetInfo(features=builder.info.features)}
    ).to_dataset_card_data(data)
    own = type(builder.config).__annotations__
    settings = {name: getattr(builder.config, name) for name in own}
    card = DatasetCard.from_template(
        data,
        template_path=str(template_folder("hub_cards") / f"{builder.dataset_name}.md"),
        call=", ".join(
            f"{name}={value!r}" for name, value in settings.items() if value is not None
        ),
        settings=settings,
        version=package_version(),
        splits={
            split: _reaction_facts(rows) if simulated else _face_facts(rows)
            for split, rows in splits.items()
        },
        **(_reaction_words(builder) if simulated else {"present": PRESENT_INTENSITY}),
    )
    return str(card)


def _file_of(split: str) -> str:
    return f"data/{split}-00000-of-00001.parquet"


def _reaction_words(builder: SimulatedReactions) -> dict:
    domain = domain_named(builder.config.domain)
    return {
        "domain": domain.what,
        "fps": builder.fps,
        "reactions": REACTIONS,
        "affect": affect_names(),
    }


def _reaction_facts(rows: datasets.Dataset) -> dict:
    """Numbers of a split of clips: how many, of how many people, how long, and each reaction's labels."""
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


def _face_facts(rows: datasets.Dataset) -> dict:
    """Numbers of a split of faces: how many have each kind of label, show each expression, and each unit."""
    columns = {action_unit_name(unit): action_unit_column(unit) for unit in ACTION_UNITS}
    table = rows.select_columns(["expression", "valence", *columns.values()]).with_format("pandas")[
        :
    ]
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
