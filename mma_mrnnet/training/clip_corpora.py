"""The clips that `--stage mrnn --data ...` names, simulated or from files, by split."""

import logging
import os
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from accelerate.utils import parse_flag_from_env

from mma_mrnnet.corpora import CORPORA, ClipReader, clip_provenance
from mma_mrnnet.corpora.clip_folder import LabelChoice
from mma_mrnnet.corpora.hume_reaction import CROPS_FPS
from mma_mrnnet.crops.store import read_index
from mma_mrnnet.features.clip_cache import ClipCache, read_splits
from mma_mrnnet.features.clip_rows import AffectCache, TableCache, find_unmeasured
from mma_mrnnet.features.records import ClipFile
from mma_mrnnet.model.labels import ACTION_UNITS, REACTIONS
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import ClipData, Provenance
from mma_mrnnet.synthetic.domains import domain_named
from mma_mrnnet.synthetic.drawn_clips import is_drawn
from mma_mrnnet.synthetic.extractor_noise import ExtractorNoise, noise_from_errors
from mma_mrnnet.synthetic.reactions import PROVENANCE, as_dataset, hume_like_splits
from mma_mrnnet.tables.features import exactly, is_table
from mma_mrnnet.training.arguments import NO_EXTRACTOR, TrainArguments
from mma_mrnnet.training.datasets import ClipDataset
from mma_mrnnet.training.extractor_errors import read_errors

logger = logging.getLogger(__name__)


@dataclass
class ClipCorpus:
    """Description of a corpus before its clips are read.

    Attributes:
        names: the K targets in output order.
        relative_labels: whether each label vector was divided by its own maximum.
        simulated_labels: whether the labels come from a simulation instead of people.
        files: None for simulated clips.
        id_column: header of the clip names in tables of predictions.
        domain: the simulated domain; None is the default one.
        noise: the measured extractor errors that the simulated domain repeats, if any.
    """

    names: list[str]
    provenance: Provenance
    relative_labels: bool
    simulated_labels: bool
    files: list[ClipFile] | None = None
    id_column: str = ""
    title: str = ""
    domain: str | None = None
    noise: ExtractorNoise | None = None

    @property
    def holds_tables(self) -> bool:
        """Whether the clips are feature tables; either all are or none."""
        return self.files is not None and _is_table(self.files[0])


def read_corpus(args: TrainArguments, *, needs_extractor: bool = True) -> ClipCorpus:
    """Read the description of the corpus that `args.data` names, but not its clips.

    If `needs_extractor` is False (a model that reads pixels), `args.mma` may be missing.
    Raises ValueError for an unknown corpus or domain, a wrong layout, or settings that do not
    fit the data.
    """
    kind, _, folder = args.data.partition(":")
    if kind != "hume" and args.clips_from != "auto":
        raise ValueError(
            f"--clips_from {args.clips_from} goes with --data hume:FOLDER; got --data {args.data}"
        )
    if kind == "simulated":
        return _simulated_corpus(args, None if args.data == "simulated" else folder)
    reader = CORPORA.get(kind)
    if not isinstance(reader, ClipReader) or not folder:
        raise ValueError(
            "--stage mrnn reads --data simulated, simulated:DOMAIN, clips:FOLDER or hume:FOLDER; "
            f"got {args.data!r}"
        )
    low, high = args.label_range
    choice = LabelChoice(args.targets, args.ignore, (low, high))
    if kind != "clips" and choice != LabelChoice([], [], (0.0, 1.0)):
        raise ValueError("--targets, --ignore and --label_range go with --data clips:FOLDER")
    files = reader.read(folder, args.clips_from, choice)
    of_hume = kind == "hume"
    if of_hume and args.sampling_fps != CROPS_FPS and any(clip.path.is_dir() for clip in files):
        raise ValueError(
            f"{folder}: its face crops come at {CROPS_FPS:g} a second; --sampling_fps must be "
            f"that, got {args.sampling_fps:g}"
        )
    for clip in files:
        if clip.path.is_dir() and (index := read_index(clip.path)) is not None:
            index.check_rate(clip.path, args.sampling_fps)
    corpus = ClipCorpus(
        list(files[0].labels),
        clip_provenance(kind, folder),
        relative_labels=of_hume,
        simulated_labels=of_hume and is_drawn(folder),
        files=files,
        id_column=reader.id_column,
        title=reader.title,
    )
    _check_input(corpus, args, needs_extractor)
    return corpus


def _simulated_corpus(args: TrainArguments, domain: str | None) -> ClipCorpus:
    if args.features:
        raise ValueError("--features chooses columns of tables; --data simulated has none")
    noise = None
    if domain_named(domain).needs_errors and args.mma is not None:
        noise = noise_from_errors(read_errors(args.mma))
    return ClipCorpus(
        list(REACTIONS),
        PROVENANCE,
        relative_labels=True,
        simulated_labels=True,
        domain=domain,
        noise=noise,
    )


def _check_input(corpus: ClipCorpus, args: TrainArguments, needs_extractor: bool) -> None:
    """Check that either all clips or none are tables, and that the settings fit."""
    files, folder = corpus.files or [], args.data.partition(":")[2]
    odd = next((clip for clip in files if _is_table(clip) != corpus.holds_tables), None)
    if odd is not None:
        table, other = (files[0], odd) if corpus.holds_tables else (odd, files[0])
        raise ValueError(
            f"{table.path}: a table of features, which {other.path} is not; "
            "all clips must be, or none"
        )
    if corpus.holds_tables and args.mma is not None:
        raise ValueError(
            f"{folder}: its clips are tables of features, which replace an extractor: no --mma"
        )
    if not corpus.holds_tables and args.features:
        raise ValueError(f"{folder}: its clips are no tables of features: no --features")
    if not corpus.holds_tables and args.mma is None and needs_extractor:
        raise ValueError(NO_EXTRACTOR)


def _is_table(clip: ClipFile) -> bool:
    return is_table(clip.path)


# What a model reads of each frame ----------------------------------------------------------------


class ClipInput(Protocol):
    """Per-frame input of stage 2: the affect from an extractor, or the features of a table."""

    usable: str
    """What makes a clip usable, for messages."""

    def open_cache(self, corpus: ClipCorpus, args: TrainArguments) -> ClipCache:
        """Open the cache of per-clip rows."""

    def check_simulated(self) -> None:
        """Raise ValueError if simulated affect does not fit this input."""


class ExtractorInput:
    """Affect of videos or face crops, from a stage-1 extractor."""

    usable = "clip with a face"

    def __init__(self, extractor: MMAModel, processor: MMAMRNNetVideoProcessor) -> None:
        self.extractor, self.processor = extractor, processor

    def open_cache(self, corpus: ClipCorpus, args: TrainArguments) -> AffectCache:
        """Open the cache of affect; moves the extractor to the GPU if one is used."""
        torch.set_num_threads(args.threads)
        if torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU"):
            module: torch.nn.Module = self.extractor
            module.cuda(int(os.environ.get("LOCAL_RANK", "0")))
        extractor = self.extractor.eval()
        return AffectCache(cache_folder(args), extractor, self.processor, args.sampling_fps)

    def check_simulated(self) -> None:
        """Raise ValueError if the extractor's units differ from those of simulated clips."""
        if tuple(self.extractor.config.action_units) != ACTION_UNITS:
            raise ValueError(
                f"--data simulated has units {ACTION_UNITS}; "
                f"--mma has {self.extractor.config.action_units}"
            )


class TableInput:
    """Features of tables; `patterns` select columns (empty: the default of the table's kind)."""

    usable = "table with a usable row"

    def __init__(self, patterns: list[str]) -> None:
        self.patterns = patterns

    def open_cache(self, corpus: ClipCorpus, args: TrainArguments) -> TableCache:
        """Open the cache of features; the first table determines the columns."""
        tables = [clip for clip in _wanted(corpus) if clip.files]
        return TableCache(
            cache_folder(args), tables, self.patterns, args.sampling_fps, args.table_fps
        )

    def check_simulated(self) -> None:
        """Raise ValueError: simulated clips have only affect."""
        raise ValueError("--data simulated is for models with an extractor; this one reads tables")


def input_of(model: MMAMRNNetForIntensity, processor: MMAMRNNetVideoProcessor) -> ClipInput:
    """Return the input that fits a model."""
    if model.mma is None:
        return TableInput(exactly(model.config.feature_names or ()))
    return ExtractorInput(model.mma, processor)


# The splits --------------------------------------------------------------------------------------


@dataclass
class ClipSplit:
    """One split of the clips; `files` lists all in the corpus's order, none if simulated.

    Attributes:
        rows: for training or scoring: the labelled clips with a face, or all simulated clips.
        with_face: for prediction: `rows`, followed by the unlabelled clips with a face.
    """

    rows: ClipDataset
    with_face: ClipDataset
    files: list[ClipFile] = field(default_factory=list)

    @property
    def is_labelled(self) -> bool:
        """Whether any clip can be scored."""
        return len(self.rows) > 0 or any(clip.is_labelled for clip in self.files)


@dataclass
class LoadedClips:
    """The clips for training or testing stage 2.

    Attributes:
        splits: `train`, `validation` and, if the corpus has it, `test`, which may be
            unlabelled.
        fingerprint: a digest of clips, labels and rows; empty for simulated clips, which the
            settings determine.
        feature_names: columns of tables; empty for affect.
    """

    splits: dict[str, ClipSplit]
    data: ClipData
    provenance: list[Provenance]
    fingerprint: list[str] = field(default_factory=list)
    feature_names: list[str] = field(default_factory=list)


def load_clips(corpus: ClipCorpus, args: TrainArguments, read: ClipInput) -> LoadedClips:
    """Load the splits in the form that a model reads; drop unlabelled training clips.

    Raises ValueError if train or validation has no usable labelled clip, or for other units or
    features than expected.
    """
    if corpus.files is None:
        read.check_simulated()
        return _simulate_clips(corpus, args)
    cache = read.open_cache(corpus, args)
    clips = load_stored(corpus, args, cache, read.usable)
    if isinstance(cache, TableCache):
        clips.data.data += f" ({cache.kind})"
        clips.data.without_usable_rows, clips.data.without_face = clips.data.without_face, None
        clips.feature_names = cache.names
        _leave_out_unmeasured(clips, cache)
    return clips


def _leave_out_unmeasured(clips: LoadedClips, cache: TableCache) -> None:
    """Drop columns that are not measurements, unless the user chose columns; log the rest."""
    left_out = dict(cache.left_out)
    if cache.patterns is None:
        found = find_unmeasured(cache.names, clips.splits["train"].rows.frames)
        columns = [place for place, name in enumerate(cache.names) if name not in found]
        if not columns:
            raise ValueError(
                f"{cache.first}: no column measures anything: {', '.join(found)} count with the "
                "rows or are constant in each clip; --features takes columns nevertheless"
            )
        if found:
            clips.feature_names = [cache.names[place] for place in columns]
            for split in clips.splits.values():
                split.rows = split.rows.select_columns(columns)
                split.with_face = split.with_face.select_columns(columns)
        left_out |= found
    logger.info("columns taken as features: %s", ", ".join(clips.feature_names))
    reasons = [f"{name} ({reason})" for name, reason in left_out.items()]
    logger.info("columns left out: %s", ", ".join(reasons) or "none")


def _simulate_clips(corpus: ClipCorpus, args: TrainArguments) -> LoadedClips:
    shares = (args.quiet_share, args.short_share)
    rows = _simulated_rows(
        args.seed, tuple(args.clips), shares, args.sampling_fps, corpus.domain, corpus.noise
    )
    splits = {name: ClipSplit(rows[name], rows[name]) for name in rows}
    domain = domain_named(corpus.domain)
    what = (
        "simulated reactions; no person was recorded or rated; "
        f"{domain.rate(args.sampling_fps):g} frames a second"
    )
    if corpus.domain is not None:
        what += f"; domain {corpus.domain}: {domain.what}"
    return LoadedClips(splits, ClipData(what, _count_kinds(splits)), [corpus.provenance])


@lru_cache(maxsize=8)
def _simulated_rows(
    seed: int,
    counts: tuple[int, int, int],
    shares: tuple[float, float],
    fps: float,
    domain: str | None,
    noise: ExtractorNoise | None,
) -> dict[str, ClipDataset]:
    """Simulate all splits; cached, because several trainings in one process often share them."""
    made = hume_like_splits(
        seed,
        counts,
        quiet_share=shares[0],
        short_share=shares[1],
        fps=fps,
        domain=domain,
        noise=noise,
    )
    return {name: ClipDataset.from_rows(as_dataset(clips)) for name, clips in made.items()}


def load_stored(
    corpus: ClipCorpus, args: TrainArguments, cache: ClipCache, usable: str = "clip with a face"
) -> LoadedClips:
    """Load clips in files; raise ValueError if train or validation has no usable labelled clip."""
    wanted = _wanted(corpus)
    done = read_splits(wanted, cache, start=_share_of_work())
    splits = {
        name: ClipSplit(
            rows=ClipDataset.from_files(split, split.labelled),
            with_face=ClipDataset.from_files(split),
            files=[clip for clip in wanted if clip.split == name],
        )
        for name, split in done.items()
    }
    for name in ("train", "validation"):
        if name not in splits or len(splits[name].rows) == 0:
            raise ValueError(f"{args.data}: no labelled {usable} in {name}")
    files = corpus.files or []
    data = ClipData(
        f"{_name_of(corpus)}, {_kinds_of(wanted)}",
        _count_kinds(splits),
        # Readers that know the people reject a person who is in two splits.
        people_apart=all(clip.subject for clip in files),
        without_face=sum(len(split.without_rows) for split in done.values()),
        unreadable=sum(len(split.unreadable) for split in done.values()),
        unlabelled=sum(not clip.is_labelled for clip in files),
    )
    fingerprint = [f"{name} {split.fingerprint}" for name, split in sorted(done.items())]
    return LoadedClips(splits, data, [corpus.provenance], fingerprint)


def _name_of(corpus: ClipCorpus) -> str:
    if corpus.simulated_labels:
        return f"drawn faces of simulated reactions in the layout of {corpus.title}"
    return corpus.title


def _kinds_of(clips: list[ClipFile]) -> str:
    kinds = set()
    for clip in (clip for clip in clips if clip.path.exists()):
        if _is_table(clip):
            kinds.add("tables of features")
        elif clip.path.is_dir():
            kinds.add("stored face crops")
        else:
            kinds.add("videos")
    return f"as {' and '.join(sorted(kinds))}"


def _wanted(corpus: ClipCorpus) -> list[ClipFile]:
    return [clip for clip in corpus.files or [] if clip.is_labelled or clip.split != "train"]


def _count_kinds(splits: dict[str, ClipSplit]) -> dict[str, int]:
    return {
        f"{name}_{kind}": count
        for name, split in splits.items()
        for kind, count in Counter(split.rows.kinds).items()
    }


def cache_folder(args: TrainArguments) -> Path:
    """Return the folder of cached rows: `--cache`, or a folder inside the run's."""
    return Path(args.cache) if args.cache else args.output / "affect"


def _share_of_work() -> float:
    """Return the position of this process among those of the launch, in [0, 1)."""
    return int(os.environ.get("RANK", "0")) / int(os.environ.get("WORLD_SIZE", "1"))
