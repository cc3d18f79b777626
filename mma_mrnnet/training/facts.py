"""What a run records beside its scores, so that `mma-mrnnet diagnose` can say what went wrong with it."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from mma_mrnnet.metrics import mean_where_labels_vary, pearson_scores
from mma_mrnnet.model.configuration_mma_mrnnet import MMAConfig
from mma_mrnnet.model.labels import EXPRESSIONS, action_unit_name, is_present
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor, thinned_indices
from mma_mrnnet.training.clip_corpora import ClipSplit
from mma_mrnnet.training.datasets import ClipDataset, FrameDataset
from mma_mrnnet.training.reports import Tensors, rows_of_kind

TRAINING_CLIPS = (
    2000  # that are scored, evenly spread: as many as make a correlation's standard error .02
)
INPUT_CLIPS = 512  # of validation whose inputs are looked at
LEAST_INPUT_CLIPS = 64  # with fewer, what an exchange costs drowns in the sampling
FRAMES = 900_000  # that the exchanges send through the network at most: seconds on one core
VALUES = 16_000_000  # of inputs that memory holds, padded: 64 MB
PART = 256  # clips that go through the network at once

# Stage 1 -----------------------------------------------------------------------------------------------------------


def frame_facts(train: FrameDataset, config: MMAConfig) -> dict:
    """The training labels of each output, and the outputs that no label or nothing at all taught."""
    annotated, present = ~train.intensity.isnan(), is_present(train.intensity)
    units = {
        action_unit_name(unit): {"annotated": int(seen), "present": int(positive)}
        for unit, seen, positive in zip(
            config.action_units, annotated.sum(0), present.sum(0), strict=True
        )
    }
    expressions = {
        name: int((train.expression == number).sum()) for number, name in enumerate(EXPRESSIONS)
    }
    return {
        "labels": {
            "train": {"images": len(train), "action_units": units, "expressions": expressions}
        },
        "learnt_from_the_prior_alone": [
            action_unit_name(unit) for unit in config.prior_only_action_units
        ],
        "untrained_outputs": list(config.untrained_outputs or ()),
    }


# Stage 2 -----------------------------------------------------------------------------------------------------------


def clip_facts(
    model: MMAMRNNetForIntensity,
    processor: MMAMRNNetVideoProcessor,
    predict: Callable[[Dataset], tuple[Tensors, Tensors]],
    splits: dict[str, ClipSplit],
    predicted: dict[str, Tensors],
) -> dict:
    """Training scores, and what the labels, the outputs and the inputs look like.

    Args:
        model: the best one, calibrated.
        processor: pads for it.
        predict: outputs and labels of a data set.
        splits: the clips.
        predicted: `intensities` and `logits` (N, K) of the clips with a face, of the splits that were predicted.
    """
    names = model.config.label_names
    return {
        "train": training_scores(predict, splits["train"].rows, names),
        "labels": {name: label_facts(split.rows.labels, names) for name, split in splits.items()},
        "outputs": {name: output_facts(outputs, names) for name, outputs in predicted.items()},
        "inputs": input_facts(model, processor, splits["validation"].rows),
    }


def training_scores(
    predict: Callable[[Dataset], tuple[Tensors, Tensors]], rows: ClipDataset, names: list[str]
) -> dict | None:
    """Pearson of each target over at most 2,000 training reactions, evenly spread; None where there is none."""
    chosen = _spread_reactions(rows, TRAINING_CLIPS)
    if not chosen:
        return None
    outputs, labels = predict(Subset(rows, chosen))
    scores = pearson_scores(outputs["intensities"], labels["labels"])
    return {
        "clips": len(chosen),
        "mean_pearson": mean_where_labels_vary(scores, labels["labels"]),
        "pearson": dict(zip(names, scores.tolist(), strict=True)),
    }


def label_facts(labels: Tensor, names: list[str]) -> dict[str, dict[str, float]]:
    """Of each target the labelled clips (of all kinds, with a face), and where their labels lie.

    Args:
        labels: (N, K), NaN where unlabelled.
        names: of the K targets.
    """
    facts = {}
    for name, column in zip(names, labels.double().unbind(1), strict=True):
        known = column[~column.isnan()]
        facts[name] = {"labelled": len(known)}
        if len(known):
            most = int(known.unique(return_counts=True)[1].max())
            facts[name] |= {**_spread_of(known), "share_of_the_most_frequent": most / len(known)}
    return facts


def output_facts(outputs: Tensors, names: list[str]) -> dict[str, dict[str, float]]:
    """Of each target where the calibrated intensities lie, and the deviation of the logits, before any clamping."""
    columns = zip(
        names,
        outputs["intensities"].double().unbind(1),
        outputs["logits"].double().unbind(1),
        strict=True,
    )
    return {
        name: {
            **_spread_of(intensity),
            "least": intensity.min().item(),
            "most": intensity.max().item(),
            "deviation_of_logits": logits.std(correction=0).item(),
        }
        for name, intensity, logits in columns
    }


def _spread_of(values: Tensor) -> dict[str, float]:
    return {
        "mean": values.mean().item(),
        "deviation": values.std(correction=0).item(),
        "share_at_0": (values == 0).double().mean().item(),
        "share_at_1": (values == 1).double().mean().item(),
    }


@torch.no_grad()
def input_facts(
    model: MMAMRNNetForIntensity, processor: MMAMRNNetVideoProcessor, rows: ClipDataset
) -> dict | None:
    """Of each channel that the GRU reads mean and deviation, and what its exchange among clips costs in mean Pearson.

    At most 512 reactions, evenly spread. A clip gets the whole sequence that another one has in this channel, cut to
    its own length or going on with the last value (our choice); who gets whose is drawn once, from a fixed seed, the
    same for every channel. Inputs so many or so long that the exchange would take long are exchanged among fewer
    clips, and below 64 not at all: `drop` is then None.

    Args:
        model: scored as it stands, in its own precision.
        processor: pads for it.
        rows: clips with labels.

    Returns:
        None where there is no reaction.
    """
    names = model.config.input_names
    chosen = _spread_reactions(
        rows, max(1, min(INPUT_CLIPS, VALUES // (len(names) * processor.num_frames)))
    )
    if not chosen:
        return None
    items = rows.__getitems__(chosen)
    affect, frame_mask = processor.pad([item["affect"] for item in items])  # (n, T, A), (n, T)
    frames = affect[frame_mask].double()  # (N, A)
    exchanged_clips = min(len(chosen), FRAMES // ((len(names) + 1) * affect.shape[1]))
    facts: dict = {"clips": len(chosen), "exchanged_clips": 0, "mean_pearson": None}
    drops: list[float | None] = [None] * len(names)
    if exchanged_clips >= min(LEAST_INPUT_CLIPS, len(chosen)) and exchanged_clips > 1:
        few = thinned_indices(len(chosen), exchanged_clips)
        labels = torch.stack([torch.as_tensor(items[number]["labels"]) for number in few.tolist()])
        facts["exchanged_clips"] = exchanged_clips
        facts["mean_pearson"], drops = _exchange_drops(model, affect[few], frame_mask[few], labels)
    spread = zip(
        names, frames.mean(0).tolist(), frames.std(0, correction=0).tolist(), drops, strict=True
    )
    read = set(model.config.gru_input_names)
    facts["channels"] = {
        name: {"mean": mean, "deviation": deviation, "drop": drop}
        for name, mean, deviation, drop in spread
        if name in read
    }
    return facts


def _exchange_drops(
    model: MMAMRNNetForIntensity, affect: Tensor, frame_mask: Tensor, labels: Tensor
) -> tuple[float, list[float]]:
    """Mean Pearson of n > 1 clips, and by how much it falls when one channel (of A) is exchanged among them."""
    count, num_frames, channels = affect.shape
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    donors = torch.empty_like(order)
    donors[order] = order.roll(1)  # one ring: nobody keeps its own
    last = frame_mask.sum(1).clamp(min=1) - 1  # (n,)
    frames = torch.minimum(torch.arange(num_frames)[None], last[donors][:, None])  # (n, T)
    real = frame_mask.unsqueeze(-1)  # what stands in padding is nobody's
    exchanged = torch.where(real, affect[donors[:, None], frames], affect)  # (n, T, A)

    def score(values: Tensor) -> float:
        parts = zip(values.split(PART), frame_mask.split(PART), strict=True)
        outputs = [
            model(affect=part.to(model.device), frame_mask=mask.to(model.device))
            for part, mask in parts
        ]
        intensities = torch.cat([output.intensities.float().cpu() for output in outputs])  # (n, K)
        return mean_where_labels_vary(pearson_scores(intensities, labels), labels)

    whole = score(affect)
    drops = []
    for channel in range(channels):
        changed = affect.clone()
        changed[:, :, channel] = exchanged[:, :, channel]
        drops.append(whole - score(changed))
    return whole, drops


def _spread_reactions(rows: ClipDataset, most: int) -> list[int]:
    reactions = rows_of_kind(rows, "reaction").nonzero().flatten()
    return reactions[thinned_indices(len(reactions), most)].tolist()
