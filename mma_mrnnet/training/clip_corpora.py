"""The clips that `--stage mrnn --data ...` names (simulated, a user's own, Hume-Reaction) as splits of affect."""

import os
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from accelerate.utils import parse_flag_from_env

from mma_mrnnet.corpora import CORPORA, ClipReader, clip_provenance
from mma_mrnnet.corpora.hume_reaction import CROPS_FPS
from mma_mrnnet.crops.store import read_index
from mma_mrnnet.features.affect_cache import AffectCache
from mma_mrnnet.features.clip_cache import ClipCache, corpus_affect
from mma_mrnnet.features.pixel_cache import PixelCache
from mma_mrnnet.features.records import ClipFile
from mma_mrnnet.features.table_cache import TableCache
from mma_mrnnet.model.labels import ACTION_UNITS, REACTIONS
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import Provenance
from mma_mrnnet.synthetic.domains import domain_named
from mma_mrnnet.synthetic.drawn_clips import is_drawn
from mma_mrnnet.synthetic.extractor_noise import ExtractorNoise, noise_from_errors
from mma_mrnnet.synthetic.reactions import PROVENANCE, as_dataset, hume_like_splits
from mma_mrnnet.tables import TABLE_SUFFIX
from mma_mrnnet.training.arguments import NO_EXTRACTOR, TrainArguments
from mma_mrnnet.training.datasets import ClipDataset
from mma_mrnnet.training.extractor_errors import recorded_errors


@dataclass
class ClipCorpus:
    """What is known of a corpus before its clips are looked at.

    Attributes:
        names: the K targets in output order.
        provenance: where the clips come from.
        relative_labels: True where each label vector was divided by its own maximum.
        simulated_labels: True where no person was recorded or rated.
        files: the clips; None for simulated ones.
        id_column: what a table of predictions calls the clips' names.
        title: what the results call a corpus in files.
        domain: of simulated clips, the name of one that is not the usual one.
        noise: of simulated clips, the extractor's measured errors, where the domain repeats them.
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
        """Whether the clips are tables of features; all of them are where one is."""
        return self.files is not None and _is_table(self.files[0])


def read_corpus(args: TrainArguments, *, needs_extractor: bool = True) -> ClipCorpus:
    """The corpus that `args.data` names.

    Args:
        args: the run's settings.
        needs_extractor: False for a model that reads pixels: `mma` may then be missing, and is not looked at.

    Raises:
        ValueError: another kind of data, no such simulated domain, no errors of the extractor measured where it repeats
            them, a corpus that is not as its reader describes, tables of features beside videos, `mma` or `features`
            where they do not belong, or no `mma` where it is needed.
    """
    kind, _, folder = args.data.partition(":")
    if kind != "hume" and args.clips_from != "auto":
        raise ValueError(
            f"--clips_from {args.clips_from} goes with --data hume:FOLDER; got --data {args.data}"
        )
    if kind == "simulated":
        if args.features:
            raise ValueError("--features chooses columns of tables; --data simulated has none")
        domain = None if args.data == "simulated" else folder
        measured = domain_named(domain).needs_errors and args.mma is not None
        noise = noise_from_errors(recorded_errors(args.mma)) if measured else None
        return ClipCorpus(
            list(REACTIONS),
            PROVENANCE,
            relative_labels=True,
            simulated_labels=True,
            domain=domain,
            noise=noise,
        )
    reader = CORPORA.get(kind)
    if not isinstance(reader, ClipReader) or not folder:
        raise ValueError(
            f"--stage mrnn reads --data simulated, simulated:DOMAIN, clips:FOLDER or hume:FOLDER; got {args.data!r}"
        )
    files = reader.read(folder, args.clips_from)
    if (
        kind == "hume"
        and args.sampling_fps != CROPS_FPS
        and any(clip.path.is_dir() for clip in files)
    ):
        raise ValueError(
            f"{folder}: its face crops come at {CROPS_FPS:g} a second; --sampling_fps must be that, "
            f"got {args.sampling_fps:g}"
        )
    for clip in files:
        if clip.path.is_dir() and (index := read_index(clip.path)) is not None:
            index.check_rate(clip.path, args.sampling_fps)
    corpus = ClipCorpus(
        list(files[0].labels),
        clip_provenance(kind, folder),
        relative_labels=kind == "hume",
        simulated_labels=kind == "hume" and is_drawn(folder),
        files=files,
        id_column=reader.id_column,
        title=reader.title,
    )
    _check_kind(corpus, args, needs_extractor)
    return corpus


def _check_kind(corpus: ClipCorpus, args: TrainArguments, needs_extractor: bool) -> None:
    """Raises ValueError where tables and other clips are mixed, or come with settings that are the other kind's."""
    files, folder = corpus.files or [], args.data.partition(":")[2]
    odd = next((clip for clip in files if _is_table(clip) != corpus.holds_tables), None)
    if odd is not None:
        table, other = (files[0], odd) if corpus.holds_tables else (odd, files[0])
        raise ValueError(
            f"{table.path}: a table of features, which {other.path} is not; all clips must be, or none"
        )
    if corpus.holds_tables and args.mma is not None:
        raise ValueError(
            f"{folder}: its clips are tables of features, which stand in an extractor's place: no --mma"
        )
    if not corpus.holds_tables and args.features:
        raise ValueError(f"{folder}: its clips are no tables of features: no --features")
    if not corpus.holds_tables and args.mma is None and needs_extractor:
        raise ValueError(NO_EXTRACTOR)


def _is_table(clip: ClipFile) -> bool:
    return clip.path.suffix.lower() == TABLE_SUFFIX


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


def clip_splits(
    corpus: ClipCorpus,
    args: TrainArguments,
    extractor: MMAModel,
    processor: MMAMRNNetVideoProcessor,
) -> tuple[dict[str, ClipSplit], dict]:
    """The corpus's splits as affect, and a description of them for the results.

    Training clips without any label are not looked at.

    Returns:
        `train`, `validation` and, where the corpus has it, `test`, which may be without labels; and what they are, in
        words and numbers.

    Raises:
        ValueError: train or validation holds no labelled clip with a face; or the extractor has other units than
            simulated clips.
    """
    if corpus.files is None:
        if tuple(extractor.config.action_units) != ACTION_UNITS:
            raise ValueError(
                f"--data simulated has units {ACTION_UNITS}; --mma has {extractor.config.action_units}"
            )
        return _simulated_splits(corpus, args)
    return stored_splits(corpus, args, _cache(args, extractor, processor))


def _simulated_splits(
    corpus: ClipCorpus, args: TrainArguments
) -> tuple[dict[str, ClipSplit], dict]:
    """What `clip_splits` returns, of clips that are made now."""
    shares = (args.quiet_share, args.short_share)
    rows = _simulated_rows(
        args.seed, tuple(args.clips), shares, args.sampling_fps, corpus.domain, corpus.noise
    )
    splits = {name: ClipSplit(rows[name], rows[name]) for name in rows}
    domain = domain_named(corpus.domain)
    what = f"simulated reactions; no person was recorded or rated; {domain.rate(args.sampling_fps):g} frames a second"
    if corpus.domain is not None:
        what += f"; domain {corpus.domain}: {domain.what}"
    return splits, {
        "data": what,
        "provenance": [corpus.provenance.to_json()],
        **_counts(splits),
    }


@lru_cache(maxsize=8)
def _simulated_rows(
    seed: int,
    counts: tuple[int, int, int],
    shares: tuple[float, float],
    fps: float,
    domain: str | None,
    noise: ExtractorNoise | None,
) -> dict[str, ClipDataset]:
    """The simulated clips by split; kept, since several trainings in one process often take the same."""
    quiet_share, short_share = shares
    made = hume_like_splits(
        seed,
        counts,
        quiet_share=quiet_share,
        short_share=short_share,
        fps=fps,
        domain=domain,
        noise=noise,
    )
    return {name: ClipDataset(as_dataset(clips)) for name, clips in made.items()}


def table_splits(
    corpus: ClipCorpus, args: TrainArguments
) -> tuple[dict[str, ClipSplit], dict, list[str]]:
    """The splits of a corpus of feature tables: as `clip_splits`, with the features' names.

    Raises:
        ValueError: a table that cannot be read or has other features than the first, or a split without a usable row.
    """
    first = next(clip for clip in _wanted(corpus) if clip.files)
    cache = TableCache(_cache_folder(args), first, args.features, args.sampling_fps)
    splits, description = stored_splits(corpus, args, cache)
    description["data"] += f" ({cache.kind})"
    description["without_usable_rows"] = description.pop("without_face")
    return splits, description, cache.names


def pixel_splits(
    corpus: ClipCorpus, args: TrainArguments, processor: MMAMRNNetVideoProcessor
) -> tuple[dict[str, ClipSplit], dict]:
    """The splits with a frame's 3 * S * S pixel values in the place of affect: as `clip_splits`.

    Raises:
        ValueError: clips without pixels (simulated affect, tables of features), or as `stored_splits`.
    """
    if corpus.files is None or corpus.holds_tables:
        raise ValueError(
            f"--data {args.data}: its clips hold no pixels; videos or face crops are needed"
        )
    return stored_splits(
        corpus, args, PixelCache(_cache_folder(args), processor, args.sampling_fps)
    )


def stored_splits(
    corpus: ClipCorpus, args: TrainArguments, cache: ClipCache
) -> tuple[dict[str, ClipSplit], dict]:
    """What `clip_splits` returns, of clips in files."""
    wanted = _wanted(corpus)
    done = corpus_affect(wanted, cache, start=_start())
    splits = {
        name: ClipSplit(
            rows=ClipDataset(split.rows.select(range(split.labelled))),
            with_face=ClipDataset(split.rows),
            files=[clip for clip in wanted if clip.split == name],
        )
        for name, split in done.items()
    }
    for name in ("train", "validation"):
        if name not in splits or len(splits[name].rows) == 0:
            usable = "table with a usable row" if corpus.holds_tables else "clip with a face"
            raise ValueError(f"{args.data}: no labelled {usable} in {name}")
    return splits, {
        "data": f"{_name_of(corpus)}, {_kinds_of(wanted)}",
        "provenance": [corpus.provenance.to_json()],
        # Readers that know the people refuse one in two splits; where they do not, nobody knows.
        "people_apart": all(clip.subject for clip in corpus.files or []),
        **_counts(splits),
        "without_face": sum(len(split.without_face) for split in done.values()),
        "unreadable": sum(len(split.unreadable) for split in done.values()),
        "unlabelled": sum(not clip.is_labelled for clip in corpus.files or []),
    }


def fingerprints_of(splits: dict[str, ClipSplit]) -> list[str]:
    """A digest of each split's clips; nothing for simulated ones, which follow from the settings."""
    # The file of a split is named by a digest of its clips, their labels and what their affect depends on.
    files = {name: split.with_face.rows.cache_files for name, split in splits.items()}
    return [
        f"{name} {[Path(file['filename']).name for file in found]}"
        for name, found in sorted(files.items())
    ]


def _name_of(corpus: ClipCorpus) -> str:
    if corpus.simulated_labels:
        return f"drawn faces of simulated reactions in the layout of {corpus.title}"
    return corpus.title


def _kinds_of(clips: list[ClipFile]) -> str:
    kinds = {
        "tables of features"
        if _is_table(clip)
        else "stored face crops"
        if clip.path.is_dir()
        else "videos"
        for clip in clips
        if clip.path.exists()
    }
    return f"as {' and '.join(sorted(kinds))}"


def _wanted(corpus: ClipCorpus) -> list[ClipFile]:
    """All clips but the training ones that no target has a label of."""
    return [clip for clip in corpus.files or [] if clip.is_labelled or clip.split != "train"]


def _counts(splits: dict[str, ClipSplit]) -> dict[str, int]:
    return {
        f"{name}_{kind}": count
        for name, split in splits.items()
        for kind, count in Counter(split.rows.kinds).items()
    }


def _cache(
    args: TrainArguments, extractor: MMAModel, processor: MMAMRNNetVideoProcessor
) -> AffectCache:
    torch.set_num_threads(args.threads)
    if torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU"):
        extractor.to(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))))
    return AffectCache(_cache_folder(args), extractor.eval(), processor, args.sampling_fps)


def _cache_folder(args: TrainArguments) -> Path:
    return Path(args.cache) if args.cache else args.output / "affect"


def _start() -> float:
    """This process's place among those of the launch, so that they share the work; 0 where there is one."""
    return int(os.environ.get("RANK", "0")) / int(os.environ.get("WORLD_SIZE", "1"))
