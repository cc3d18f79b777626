"""The clips that `--stage mrnn --data ...` names, simulated or in files, as splits of rows."""

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
    """What is known of a corpus before its clips are read.

    Attributes:
        names: the K targets in output order.
        provenance: where the clips come from.
        relative_labels: whether each label vector was divided by its own maximum.
        simulated_labels: whether no person was recorded or rated.
        files: the clips; None for simulated ones.
        id_column: what a table of predictions calls the clips' names.
        title: what results call a corpus in files.
        domain: the simulated domain; None is the usual one.
        noise: the extractor's measured errors, if the simulated domain repeats them.
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
        """Whether the clips are tables of features; if one is, all are."""
        return self.files is not None and _is_table(self.files[0])


def read_corpus(args: TrainArguments, *, needs_extractor: bool = True) -> ClipCorpus:
    """Read the corpus that `args.data` names, but not yet its clips.

    Args:
        args: the run's settings.
        needs_extractor: False for a model that reads pixels: `mma` may then be missing.

    Raises:
        ValueError: no such corpus or simulated domain; a corpus that is not as its reader
            describes; tables beside videos; settings that do not go with the data.
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
    """Check that all clips are tables or none is, and that the settings go with them."""
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
    """What stage 2 reads of each frame: an extractor's affect, or the features of a table."""

    usable: str
    """What a clip must be to count, for messages."""

    def open_cache(self, corpus: ClipCorpus, args: TrainArguments) -> ClipCache:
        """Open the cache of the clips' rows."""

    def check_simulated(self) -> None:
        """Raise ValueError if simulated affect does not go with this input."""


class ExtractorInput:
    """The affect of videos or face crops, by an extractor.

    Args:
        extractor: a stage-1 model.
        processor: scales its pixels.
    """

    usable = "clip with a face"

    def __init__(self, extractor: MMAModel, processor: MMAMRNNetVideoProcessor) -> None:
        self.extractor, self.processor = extractor, processor

    def open_cache(self, corpus: ClipCorpus, args: TrainArguments) -> AffectCache:
        """Open the cache of affect; the extractor moves to the GPU if one is used."""
        torch.set_num_threads(args.threads)
        if torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU"):
            module: torch.nn.Module = self.extractor
            module.cuda(int(os.environ.get("LOCAL_RANK", "0")))
        extractor = self.extractor.eval()
        return AffectCache(cache_folder(args), extractor, self.processor, args.sampling_fps)

    def check_simulated(self) -> None:
        """Raise ValueError if the extractor has other units than simulated clips."""
        if tuple(self.extractor.config.action_units) != ACTION_UNITS:
            raise ValueError(
                f"--data simulated has units {ACTION_UNITS}; "
                f"--mma has {self.extractor.config.action_units}"
            )


class TableInput:
    """The features of tables.

    Args:
        patterns: of the columns that are features; empty: the kind's own choice.
    """

    usable = "table with a usable row"

    def __init__(self, patterns: list[str]) -> None:
        self.patterns = patterns

    def open_cache(self, corpus: ClipCorpus, args: TrainArguments) -> TableCache:
        """Open the cache of features; the first table decides which there are."""
        tables = [clip for clip in _wanted(corpus) if clip.files]
        return TableCache(
            cache_folder(args), tables, self.patterns, args.sampling_fps, args.table_fps
        )

    def check_simulated(self) -> None:
        """Raise ValueError: simulated clips have affect alone."""
        raise ValueError("--data simulated is for models with an extractor; this one reads tables")


def input_of(model: MMAMRNNetForIntensity, processor: MMAMRNNetVideoProcessor) -> ClipInput:
    """Return what a model reads."""
    if model.mma is None:
        return TableInput(exactly(model.config.feature_names or ()))
    return ExtractorInput(model.mma, processor)


# The splits --------------------------------------------------------------------------------------


@dataclass
class ClipSplit:
    """One split of the clips.

    Attributes:
        rows: what is trained or scored on: the labelled clips with a face, or all simulated ones.
        with_face: what can be predicted: `rows`, then the unlabelled clips with a face.
        files: all clips in the corpus's order; empty for simulated ones.
    """

    rows: ClipDataset
    with_face: ClipDataset
    files: list[ClipFile] = field(default_factory=list)

    @property
    def is_labelled(self) -> bool:
        """Whether there is anything to score."""
        return len(self.rows) > 0 or any(clip.is_labelled for clip in self.files)


@dataclass
class LoadedClips:
    """The clips of a training or a test of stage 2.

    Attributes:
        splits: `train`, `validation` and, if the corpus has it, `test`, which may be unlabelled.
        data: what they are, for the results.
        provenance: where they come from.
        fingerprint: a digest of each split's clips, labels and rows; empty for simulated clips,
            which follow from the settings.
        feature_names: of tables; empty for affect.
    """

    splits: dict[str, ClipSplit]
    data: ClipData
    provenance: list[Provenance]
    fingerprint: list[str] = field(default_factory=list)
    feature_names: list[str] = field(default_factory=list)


def load_clips(corpus: ClipCorpus, args: TrainArguments, read: ClipInput) -> LoadedClips:
    """Load the corpus's splits as rows of what a model reads.

    Training clips without any label are left out.

    Raises:
        ValueError: train or validation holds no labelled clip that can be used; an extractor with
            other units than simulated clips; tables that differ in their features.
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
    """Leave out columns that measure nothing, unless the user chose; log what is taken."""
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
    """Simulate the clips of all splits; cached, since trainings in one process often share them."""
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
    """Load the splits of clips in files; `usable` says in messages what a clip must be to count.

    Raises:
        ValueError: train or validation holds no labelled clip that can be used.
    """
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
        # Readers that know the people refuse one in two splits.
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
    """Return all clips but the unlabelled ones of training."""
    return [clip for clip in corpus.files or [] if clip.is_labelled or clip.split != "train"]


def _count_kinds(splits: dict[str, ClipSplit]) -> dict[str, int]:
    return {
        f"{name}_{kind}": count
        for name, split in splits.items()
        for kind, count in Counter(split.rows.kinds).items()
    }


def cache_folder(args: TrainArguments) -> Path:
    """Return the folder of cached rows: `--cache`, or one in the run's folder."""
    return Path(args.cache) if args.cache else args.output / "affect"


def _share_of_work() -> float:
    """Return this process's place among those of the launch, in [0, 1)."""
    return int(os.environ.get("RANK", "0")) / int(os.environ.get("WORLD_SIZE", "1"))
