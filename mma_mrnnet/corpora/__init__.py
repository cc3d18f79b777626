"""The corpora that `--data NAME:FOLDER` names: their readers and their provenance."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import datasets

from mma_mrnnet.corpora import (
    aff_wild2,
    affectnet,
    bp4d,
    disfa,
    emotionet,
    hume_reaction,
    raf_db,
)
from mma_mrnnet.corpora.clip_folder import LabelChoice, load_clip_folder
from mma_mrnnet.corpora.declarations import declared_provenance
from mma_mrnnet.corpora.face_parquet import load_face_parquet
from mma_mrnnet.corpora.frame_cache import cached_frames
from mma_mrnnet.corpora.labelled_folder import load_labelled_folder
from mma_mrnnet.features.records import FRAME_SPLITS, ClipFile, frame_features
from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.results import Provenance
from mma_mrnnet.synthetic import drawn_clips, drawn_faces
from mma_mrnnet.synthetic.builders import drawn_splits


@dataclass(frozen=True)
class FrameReader:
    """A corpus of labelled face crops, for stage 1.

    `read` maps folder and action units (with `takes_required`: and required splits) to splits with
    columns `records.frame_features`. `provenance` is None if the folder declares it.
    """

    read: Callable[..., datasets.DatasetDict]
    provenance: Provenance | None = None
    is_cached: bool = True
    takes_required: bool = False


@dataclass(frozen=True)
class ClipReader:
    """A corpus of clips with intensities, for stage 2.

    `read` maps folder, `--clips_from` and choice of labels to all clips; `id_column` is for tables
    of predictions. `provenance` is None if the folder declares it.
    """

    title: str
    id_column: str
    read: Callable[[str | Path, str, LabelChoice], list[ClipFile]]
    provenance: Provenance | None = None


CORPORA: dict[str, FrameReader | ClipReader] = {
    "aff_wild2": FrameReader(aff_wild2.load_aff_wild2, aff_wild2.PROVENANCE),
    "affectnet": FrameReader(affectnet.load_affectnet, affectnet.PROVENANCE),
    "bp4d": FrameReader(bp4d.load_bp4d, bp4d.PROVENANCE),
    "disfa": FrameReader(disfa.load_disfa, disfa.PROVENANCE),
    "emotionet": FrameReader(emotionet.load_emotionet, emotionet.PROVENANCE),
    "face_parquet": FrameReader(
        load_face_parquet, is_cached=False, takes_required=True
    ),  # `datasets` caches parquet
    "labelled_folder": FrameReader(load_labelled_folder, takes_required=True),
    "raf_db": FrameReader(raf_db.load_raf_db, raf_db.PROVENANCE),
    "clips": ClipReader(
        "a user's own clips",
        "file_name",
        lambda folder, clips_from, choice: load_clip_folder(folder, choice),
    ),
    "hume": ClipReader(
        "Hume-Reaction",
        "File_ID",
        lambda folder, clips_from, choice: hume_reaction.load_hume_reaction(folder, clips_from),
        hume_reaction.PROVENANCE,
    ),
}
"""By the name that `--data NAME:FOLDER` takes."""

DRAWN = {"drawn": "drawn faces", "drawn:partial": "drawn faces, one kind of label each"}
"""Names of drawn faces in `--data`, and in results."""


def frame_readers() -> dict[str, FrameReader]:
    """Return the corpora of stage 1, by name."""
    return {name: reader for name, reader in CORPORA.items() if isinstance(reader, FrameReader)}


# Stage 1 -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelledFrames:
    """Labelled face crops with columns `records.frame_features`.

    `provenance` has one entry per source of the training rows (or of the only split), by name.
    """

    splits: datasets.DatasetDict
    provenance: tuple[Provenance, ...]

    @property
    def constructed_sources(self) -> list[str]:
        """Return the sources of synthetic faces, whose labels are true by construction."""
        others = {source.name for source in self.provenance if source.labels != "constructed"}
        return [source.name for source in self.provenance if source.name not in others]


def draw_frames(
    data: str, action_units: Sequence[int], *, items: int, seed: int, image_size: int
) -> LabelledFrames:
    """Draw `items` training faces, and a fifth as many for validation.

    `data` is a key of `DRAWN`. Raises ValueError for action units that cannot be drawn.
    """
    undrawn = [unit for unit in action_units if unit not in ACTION_UNITS]
    if undrawn:
        raise ValueError(
            f"--action_units {undrawn}: --data {data} has no such units; it has {ACTION_UNITS}"
        )
    splits = datasets.DatasetDict()
    for split, (count, split_seed) in drawn_splits(items, seed).items():
        one_kind = data == "drawn:partial" and split == "train"
        splits[split] = drawn_faces.drawn_faces(
            count, seed=split_seed, size=image_size, one_kind=one_kind
        )
    sources = sorted(set(splits["train"]["source"]))
    provenance = tuple(replace(drawn_faces.PROVENANCE, name=source) for source in sources)
    return LabelledFrames(splits, provenance)


def load_frames(
    data: str,
    action_units: Sequence[int] = ACTION_UNITS,
    required: Sequence[str] = FRAME_SPLITS,
) -> LabelledFrames:
    """Read labelled face crops of one corpus, or concatenate several.

    `data` is a folder for `load_face_parquet`, or `NAME:FOLDER`; a comma separates several. Units
    that a corpus does not annotate are NaN. `required` splits must not be empty.

    Raises:
        ValueError: not a corpus of stage 1, or an error of the corpus's reader.
    """
    if Path(data).is_dir():
        return _load_part("face_parquet", data, action_units, required)
    places = [part.strip() for part in data.split(",")]
    if "" in places or len(set(places)) < len(places):
        raise ValueError(f"--data: each NAME:FOLDER between commas once, none empty; got {data!r}")
    parts = [_load_part(*_split_place(place), action_units, required) for place in places]
    splits = datasets.DatasetDict()
    columns = list(frame_features(action_units))
    for split in required:
        rows = [part.splits[split].select_columns(columns) for part in parts]
        splits[split] = datasets.concatenate_datasets(rows)
    provenance = {entry: None for part in parts for entry in part.provenance}  # each once
    return LabelledFrames(splits, tuple(sorted(provenance, key=lambda entry: entry.name)))


def _split_place(place: str) -> tuple[str, str]:
    named = re.fullmatch(r"(\w{2,}):(.*)", place)  # one letter before a colon is a drive
    if named is None:
        return "face_parquet", place
    name, folder = named.groups()
    if not folder:
        raise ValueError(f"--data: {place} names no folder")
    if name not in frame_readers():
        raise ValueError(
            f"--data: no corpus is called {name!r}; there are {', '.join(frame_readers())}"
        )
    return name, folder


def _load_part(
    name: str, folder: str, action_units: Sequence[int], required: Sequence[str]
) -> LabelledFrames:
    reader = frame_readers()[name]
    if reader.takes_required and set(required) != set(FRAME_SPLITS):
        splits = reader.read(folder, action_units, required)
    elif reader.is_cached:
        splits = cached_frames(reader.read, folder, action_units)
    else:
        splits = reader.read(folder, action_units)
    if reader.provenance is None:
        provenance = declared_provenance(folder, set(splits[required[0]].unique("source")))
    else:
        provenance = [reader.provenance]
    return LabelledFrames(splits, tuple(provenance))


# Stage 2 -----------------------------------------------------------------------------------------


def clip_provenance(name: str, folder: str) -> Provenance:
    """Return the provenance of the clips of `--data NAME:FOLDER`."""
    reader = CORPORA[name]
    if drawn_clips.is_drawn(folder):
        return drawn_clips.PROVENANCE
    if reader.provenance is None:
        return declared_provenance(folder, [name])[0]
    return reader.provenance
