"""The clips that `--stage mrnn --data ...` names (simulated, a user's own, Hume-Reaction) as splits of affect."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from tqdm import tqdm

from mma_mrnnet.data.affect_cache import AffectCache, affect_dataset, corpus_affect
from mma_mrnnet.data.corpora.clip_folder import load_clip_folder
from mma_mrnnet.data.corpora.hume_reaction import CROPS_FPS, load_hume_reaction
from mma_mrnnet.data.crop_store import read_index
from mma_mrnnet.data.datasets import ClipDataset
from mma_mrnnet.data.feature_tables import TABLE_SUFFIX, FeatureTable, exactly, read_feature_table
from mma_mrnnet.data.records import CLIP_SPLITS, ClipFile, clip_features
from mma_mrnnet.data.synthetic import as_dataset, hume_like_splits
from mma_mrnnet.model.labels import REACTIONS
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.training.arguments import NO_EXTRACTOR, TrainArguments

READERS = {"clips": load_clip_folder, "hume": load_hume_reaction}
DATA = {"clips": "a user's own clips", "hume": "Hume-Reaction"}


@dataclass
class ClipCorpus:
    """What is known of a corpus before its clips are looked at.

    Attributes:
        names: the K targets in output order.
        relative_labels: True where each label vector was divided by its own maximum.
        simulated_labels: True where no person was recorded or rated.
        files: the annotated clips; None for simulated ones.
    """

    names: list[str]
    relative_labels: bool
    simulated_labels: bool
    files: list[ClipFile] | None = None

    @property
    def holds_tables(self) -> bool:
        """Whether the clips are tables of features; all of them are where one is."""
        return self.files is not None and _is_table(self.files[0])


def read_corpus(args: TrainArguments) -> ClipCorpus:
    """The corpus that `args.data` names.

    Raises:
        ValueError: another kind of data, a corpus that is not as its reader describes, tables of features beside
            videos, `mma` or `features` where they do not belong, or no `mma` where it is needed.
    """
    if args.data == "simulated":
        if args.features:
            raise ValueError("--features chooses columns of tables; --data simulated has none")
        return ClipCorpus(list(REACTIONS), relative_labels=True, simulated_labels=True)
    kind, _, folder = args.data.partition(":")
    if kind not in READERS or not folder:
        raise ValueError(f"--stage mrnn reads --data simulated, clips:FOLDER or hume:FOLDER; got {args.data!r}")
    files = READERS[kind](folder)
    if kind == "hume" and args.sampling_fps != CROPS_FPS and any(clip.path.is_dir() for clip in files):
        raise ValueError(
            f"{folder}: its face crops come at {CROPS_FPS:g} a second; --sampling_fps must be that, "
            f"got {args.sampling_fps:g}"
        )
    for clip in files:
        if clip.path.is_dir() and (index := read_index(clip.path)) is not None:
            index.check_rate(clip.path, args.sampling_fps)
    corpus = ClipCorpus(list(files[0].labels), relative_labels=kind == "hume", simulated_labels=False, files=files)
    _check_kind(corpus, args)
    return corpus


def _check_kind(corpus: ClipCorpus, args: TrainArguments) -> None:
    """Raises ValueError where tables and other clips are mixed, or come with settings that are the other kind's."""
    files, folder = corpus.files or [], args.data.partition(":")[2]
    odd = next((clip for clip in files if _is_table(clip) != corpus.holds_tables), None)
    if odd is not None:
        table, other = (files[0], odd) if corpus.holds_tables else (odd, files[0])
        raise ValueError(f"{table.path}: a table of features, which {other.path} is not; all clips must be, or none")
    if corpus.holds_tables and args.mma is not None:
        raise ValueError(f"{folder}: its clips are tables of features, which stand in an extractor's place: no --mma")
    if not corpus.holds_tables and args.features:
        raise ValueError(f"{folder}: its clips are no tables of features: no --features")
    if not corpus.holds_tables and args.mma is None:
        raise ValueError(NO_EXTRACTOR)


def _is_table(clip: ClipFile) -> bool:
    return clip.path.suffix.lower() == TABLE_SUFFIX


def clip_splits(
    corpus: ClipCorpus, args: TrainArguments, extractor: MMAModel, processor: MMAMRNNetVideoProcessor
) -> tuple[dict[str, ClipDataset], dict]:
    """The corpus's splits as affect, and a description of them for the results.

    Clips without any label are not looked at; a split that has no other is left out, as Hume-Reaction's test split is.

    Returns:
        `train`, `validation` and, where it has labels, `test`; and what they are, in words and numbers.

    Raises:
        ValueError: train or validation holds no labelled clip with a face.
    """
    if corpus.files is None:
        made = hume_like_splits(
            args.seed,
            (args.clips[0], args.clips[1], args.clips[2]),
            quiet_share=args.quiet_share,
            short_share=args.short_share,
        )
        splits = {name: ClipDataset(as_dataset(clips)) for name, clips in made.items()}
        return splits, {"data": "simulated reactions; no person was recorded or rated", **_counts(splits)}
    labelled = [clip for clip in corpus.files if clip.is_labelled]
    done = corpus_affect(labelled, _cache(args, extractor, processor), start=_start())
    splits = {}
    for split in CLIP_SPLITS:
        chosen = [number for number, clip in enumerate(done.clips) if clip.split == split]
        if chosen:
            clips, affect = [done.clips[number] for number in chosen], [done.affect[number] for number in chosen]
            splits[split] = ClipDataset(affect_dataset(clips, affect, extractor))
        elif split != "test":
            raise ValueError(f"{args.data}: no labelled clip with a face in {split}")
    return splits, {
        "data": DATA[args.data.partition(":")[0]],
        **_counts(splits),
        "without_face": len(done.without_face),
        "unreadable": len(done.unreadable),
        "unlabelled": len(corpus.files) - len(labelled),
    }


def table_splits(corpus: ClipCorpus, args: TrainArguments) -> tuple[dict[str, ClipDataset], dict, list[str]]:
    """The splits of a corpus of feature tables, a description of them for the results, and the features' names.

    As in `clip_splits` clips without any label are not looked at. Each process reads all tables itself.

    Returns:
        `train`, `validation` and, where it has labels, `test`, with the features in the column `affect`; what they are,
        in words and numbers; the F names in the order of the first table.

    Raises:
        ValueError: a table that cannot be read or has other features than the first, or a split without a usable row.
    """
    labelled = [clip for clip in corpus.files or [] if clip.is_labelled]
    tables = _tables_of(labelled, args)
    names = list(tables[0].names) if tables else []
    columns = clip_features(len(corpus.names))
    columns["affect"] = datasets.Array2D((None, len(names)), "float32")
    splits = {}
    for split in CLIP_SPLITS:
        chosen = [
            (clip, table)
            for clip, table in zip(labelled, tables, strict=True)
            if clip.split == split and len(table.values)
        ]
        if chosen:
            rows = {
                "clip_id": [clip.clip_id for clip, _ in chosen],
                "subject": [clip.subject for clip, _ in chosen],
                "kind": ["reaction"] * len(chosen),
                "affect": [table.values for _, table in chosen],
                "labels": [list(clip.labels.values()) for clip, _ in chosen],
            }
            splits[split] = ClipDataset(datasets.Dataset.from_dict(rows, features=columns))
        elif split != "test":
            raise ValueError(
                f"{args.data}: no labelled table in {split} has a usable row: with a face, and a number in each of "
                f"the {len(names)} columns that are taken (--features chooses them)"
            )
    kinds = ", ".join(sorted({table.kind for table in tables}))
    return (
        splits,
        {
            "data": f"{DATA[args.data.partition(':')[0]]}, as tables of features ({kinds})",
            **_counts(splits),
            "without_usable_rows": sum(len(table.values) == 0 for table in tables),
            "unlabelled": len(corpus.files or []) - len(labelled),
        },
        names,
    )


def _tables_of(clips: list[ClipFile], args: TrainArguments) -> list[FeatureTable]:
    """The clips' tables, all with the features of the first, in its order."""
    tables: list[FeatureTable] = []
    for clip in tqdm(clips, desc="tables of features", mininterval=5):
        table = read_feature_table(clip.path, args.features or None, args.sampling_fps)
        if tables and table.names != tables[0].names:
            different = sorted(set(table.names) ^ set(tables[0].names))
            if different:
                raise ValueError(
                    f"{clip.path}:1: other features than {clips[0].path}: {', '.join(different[:10])} in one alone"
                )
            table = read_feature_table(clip.path, exactly(tables[0].names), args.sampling_fps)
        tables.append(table)
    return tables


def _counts(splits: dict[str, ClipDataset]) -> dict[str, int]:
    return {f"{name}_{kind}": count for name, split in splits.items() for kind, count in Counter(split.kinds).items()}


def _cache(args: TrainArguments, extractor: MMAModel, processor: MMAMRNNetVideoProcessor) -> AffectCache:
    torch.set_num_threads(args.threads)
    if torch.cuda.is_available():
        extractor.to(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))))
    return AffectCache(args.cache or Path(args.output) / "affect", extractor.eval(), processor, args.sampling_fps)


def _start() -> float:
    """This process's place among those of the launch, so that they share the work; 0 where there is one."""
    return int(os.environ.get("RANK", "0")) / int(os.environ.get("WORLD_SIZE", "1"))
