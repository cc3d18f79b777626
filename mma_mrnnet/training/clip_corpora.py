"""The clips that `--stage mrnn --data ...` names (simulated, a user's own, Hume-Reaction) as splits of affect."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from mma_mrnnet.data.affect_cache import AffectCache, affect_dataset, corpus_affect
from mma_mrnnet.data.corpora.clip_folder import load_clip_folder
from mma_mrnnet.data.corpora.hume_reaction import CROPS_FPS, load_hume_reaction
from mma_mrnnet.data.datasets import ClipDataset
from mma_mrnnet.data.records import CLIP_SPLITS, ClipFile
from mma_mrnnet.data.synthetic import as_dataset, hume_like_splits
from mma_mrnnet.model.labels import ACTION_UNITS, REACTIONS
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.training.arguments import TrainArguments

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


def read_corpus(args: TrainArguments) -> ClipCorpus:
    """The corpus that `args.data` names.

    Raises:
        ValueError: another kind of data, or a corpus that is not as its reader describes.
    """
    if args.data == "simulated":
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
    return ClipCorpus(list(files[0].labels), relative_labels=kind == "hume", simulated_labels=False, files=files)


def clip_splits(
    corpus: ClipCorpus, args: TrainArguments, extractor: MMAModel, processor: MMAMRNNetVideoProcessor
) -> tuple[dict[str, ClipDataset], dict]:
    """The corpus's splits as affect, and a description of them for the results.

    Clips without any label are not looked at; a split that has no other is left out, as Hume-Reaction's test split is.

    Returns:
        `train`, `validation` and, where it has labels, `test`; and what they are, in words and numbers.

    Raises:
        ValueError: train or validation holds no labelled clip with a face; or the extractor has other units than
            simulated clips.
    """
    if corpus.files is None:
        if tuple(extractor.config.action_units) != ACTION_UNITS:
            raise ValueError(f"--data simulated has units {ACTION_UNITS}; --mma has {extractor.config.action_units}")
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
