"""The face crops that `--stage mma --data ...` names: splits, labels, and draws per epoch."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from mma_mrnnet.corpora import DRAWN, LabelledFrames, draw_frames, load_frames
from mma_mrnnet.features.records import FRAME_SPLITS
from mma_mrnnet.model.configuration_mma_mrnnet import MMAConfig
from mma_mrnnet.model.labels import (
    CHANNELS,
    EXPRESSIONS,
    NO_CLASS,
    VALENCE_AROUSAL,
    action_unit_name,
)
from mma_mrnnet.model.priors import action_unit_prior
from mma_mrnnet.results import FrameData, Provenance
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.datasets import FrameDataset
from mma_mrnnet.training.sampling import Draw

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameSplits:
    """Face crops for stage 1; the labels of `constructed_sources` are true by construction.

    `train` has only the labels of the taught channels, `validation` has all.
    """

    train: FrameDataset
    validation: FrameDataset
    provenance: tuple[Provenance, ...]
    constructed_sources: list[str]


def frame_splits(args: TrainArguments) -> FrameSplits:
    """Return train and validation; training rows keep only the labels of `args.channels`.

    `args.data` is a folder or corpora (see `load_frames`), `drawn` or `drawn:partial`. Raises
    ValueError if drawn faces lack a unit, or as `check_supervision` and the corpora's readers
    do.
    """
    frames = read_frames(
        args.data, args.action_units, items=args.items, seed=args.seed, image_size=args.image_size
    )
    train = FrameDataset(frames.splits["train"], args.action_units, seed=args.seed)
    _label_talkers(train, args.neutral_talkers)
    check_supervision(train, args.action_units, args.channels)
    train.keep_labels(args.channels)
    validation = FrameDataset(frames.splits["validation"], args.action_units)
    return FrameSplits(train, validation, frames.provenance, frames.constructed_sources)


def _label_talkers(train: FrameDataset, sources: Sequence[str]) -> None:
    present = sorted(set(train.sources))
    unknown = sorted(set(sources) - set(present))
    if unknown:
        raise ValueError(
            f"--neutral_talkers: no training row is of {', '.join(unknown)}; "
            f"sources are {', '.join(present)}"
        )
    train.label_talkers(sources)


def read_frames(
    data: str,
    action_units: Sequence[int],
    *,
    items: int,
    seed: int,
    image_size: int,
    required: Sequence[str] = FRAME_SPLITS,
) -> LabelledFrames:
    """Read or draw the face crops that `--data` names; errors as in the corpora's readers.

    `items`, `seed` and `image_size` are for drawn faces; `items` counts training faces, and
    validation has a fifth as many. The `required` splits must not be empty.
    """
    if data in DRAWN:
        return draw_frames(data, action_units, items=items, seed=seed, image_size=image_size)
    return load_frames(data, action_units, required)


def check_supervision(
    train: FrameDataset, action_units: Sequence[int], channels: Sequence[str] = CHANNELS
) -> None:
    """Check that every task in `channels` has training labels; warn about the others.

    `train` must still hold all labels of its corpora. Raises ValueError if a corpus has no
    labels, no taught task has any, or neither labels nor the expression prior teach a unit.
    """
    kinds = _label_kinds(train)
    counts = {kind: int(labelled.sum()) for kind, labelled in kinds.items()}
    taught_kinds = {
        kind for channel, kind in zip(CHANNELS, kinds, strict=True) if channel in channels
    }
    for kind, count in counts.items():
        if count == 0 and kind in taught_kinds:
            logger.warning(
                "no training row has a label of %s; labelled of %d rows: %s",
                kind,
                len(train),
                counts,
            )
    labelled = torch.stack(list(kinds.values())).any(0).tolist()
    labelled_rows = Counter(
        source for source, has_label in zip(train.sources, labelled, strict=True) if has_label
    )
    for source, count in sorted(Counter(train.sources).items()):
        if labelled_rows[source] == 0:
            raise ValueError(f"--data: none of the {count} training rows of {source} has a label")
    if not any(counts[kind] for kind in taught_kinds):
        raise ValueError(
            f"--channels {' '.join(channels)}: no training row has such a label; "
            f"labelled are {counts}"
        )
    if "action_units" not in channels:
        return
    taught = (~train.intensity.isnan()).any(0) | action_unit_prior(action_units).any(0)
    untaught = [
        unit for unit, known in zip(action_units, taught.tolist(), strict=True) if not known
    ]
    if untaught:
        raise ValueError(
            f"--action_units: no training row has a label of {untaught}, "
            "and the prior does not know them"
        )


def untrained_outputs(train: FrameDataset, config: MMAConfig) -> list[str]:
    """Return the outputs that neither labels nor the prior teach.

    Through the prior, distribution matching teaches expressions from units and units from
    expressions; co-annotation teaches expressions from units, and if `hard` also the reverse.
    """
    has = {kind: bool(labelled.any()) for kind, labelled in _label_kinds(train).items()}
    matched = config.distribution_matching != "off"
    names = [] if has["valence_arousal"] else list(VALENCE_AROUSAL)
    if not has["expression"] and not (
        has["action_units"] and (matched or config.co_annotation != "off")
    ):
        names += EXPRESSIONS
    through_prior = (matched and (has["expression"] or has["action_units"])) or (
        config.co_annotation == "hard" and has["expression"]
    )
    known = (
        action_unit_prior(config.action_units, binary=config.binary_prior).any(0) & through_prior
    )
    taught = (~train.intensity.isnan()).any(0) | known
    return names + [
        action_unit_name(unit)
        for unit, seen in zip(config.action_units, taught.tolist(), strict=True)
        if not seen
    ]


def items_an_epoch(
    train: FrameDataset, draws: Mapping[str, Sequence[Draw]]
) -> dict[str, dict[str, int]]:
    """Count the images that an epoch draws, by corpus and by kind of label (rounded averages)."""
    kinds = _label_kinds(train)
    return {
        corpus: {
            "images": sum(draw.count for draw in parts),
            **{
                kind: round(
                    sum(draw.count * float(labelled[draw.items].double().mean()) for draw in parts)
                )
                for kind, labelled in kinds.items()
            },
        }
        for corpus, parts in draws.items()
    }


def describe_frames(
    data: str, splits: FrameSplits, draws: Mapping[str, Sequence[Draw]]
) -> FrameData:
    """Describe the crops and the draws of an epoch, for the results."""
    train = splits.train
    sources = dict(sorted(Counter(train.sources).items()))
    return FrameData(
        DRAWN.get(data) or f"labelled crops of {', '.join(sources)}",
        train=len(train),
        validation=len(splits.validation),
        train_images_by_source=sources,
        items_an_epoch=items_an_epoch(train, draws),
        labelled_neutral_talkers=train.talkers,
    )


def _label_kinds(rows: FrameDataset) -> dict[str, torch.Tensor]:
    """Return one (N,) bool per task, in the order of `CHANNELS`: rows that have its label."""
    return {
        "valence_arousal": (~rows.valence_arousal.isnan()).any(1),
        "expression": rows.expression != NO_CLASS,
        "action_units": (~rows.intensity.isnan()).any(1),
    }
