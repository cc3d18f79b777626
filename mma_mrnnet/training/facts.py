"""Facts that a run records beside its scores, so that `mma-mrnnet diagnose` can find causes."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from mma_mrnnet.metrics import mean_where_labels_vary, pearson_scores
from mma_mrnnet.model.clip_length import thinned_indices
from mma_mrnnet.model.configuration_mma_mrnnet import MMAConfig
from mma_mrnnet.model.labels import EXPRESSIONS, action_unit_name, is_present
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import (
    ChannelFacts,
    ClipFacts,
    FrameFacts,
    FrameLabels,
    InputFacts,
    LabelFacts,
    OutputFacts,
    TrainScores,
    UnitLabels,
)
from mma_mrnnet.training.clip_corpora import ClipSplit
from mma_mrnnet.training.datasets import ClipDataset, FrameDataset
from mma_mrnnet.training.reports import Tensors, rows_of_kind

Predict = Callable[[Dataset], tuple[Tensors, Tensors]]
"""Returns outputs and labels of a data set."""

TRAINING_CLIPS = 2000  # scored at most: a correlation's standard error is then .02
INPUT_CLIPS = 512  # validation clips whose inputs are examined
LEAST_INPUT_CLIPS = 64  # with fewer, sampling error hides the effect of an exchange
FRAMES = 900_000  # at most, sent through the network by the exchanges: seconds on one core
VALUES = 16_000_000  # padded input values in memory: 64 MB
PART = 256  # clips per forward pass


def collect_frame_facts(train: FrameDataset, config: MMAConfig) -> FrameFacts:
    """Count the training labels of each output; list unlabelled and untaught ones."""
    annotated = (~train.intensity.isnan()).sum(0).tolist()
    present = is_present(train.intensity).sum(0).tolist()
    names = map(action_unit_name, config.action_units)
    counts = map(UnitLabels, annotated, present)
    expressions = {
        name: int((train.expression == number).sum()) for number, name in enumerate(EXPRESSIONS)
    }
    return FrameFacts(
        labels={
            "train": FrameLabels(len(train), dict(zip(names, counts, strict=True)), expressions)
        },
        learnt_from_the_prior_alone=list(map(action_unit_name, config.prior_only_action_units)),
        untrained_outputs=list(config.untrained_outputs or ()),
    )


def collect_clip_facts(
    model: MMAMRNNetForIntensity,
    processor: MMAMRNNetVideoProcessor,
    predict: Predict,
    splits: dict[str, ClipSplit],
    predicted: dict[str, Tensors],
) -> ClipFacts:
    """Return training scores and the distributions of labels, outputs and inputs.

    `model` is the best one, calibrated; `predict` is the argument of `Stage.finish`;
    `predicted` holds, by split, `intensities` and `logits` (N, K) of the clips with a face.
    """
    names = model.config.label_names
    return ClipFacts(
        train=score_training_clips(predict, splits["train"].rows, names),
        labels={name: describe_labels(split.rows.labels, names) for name, split in splits.items()},
        outputs={name: describe_outputs(values, names) for name, values in predicted.items()},
        inputs=describe_inputs(model, processor, splits["validation"].rows),
    )


def score_training_clips(
    predict: Predict, rows: ClipDataset, names: list[str]
) -> TrainScores | None:
    """Score at most 2,000 training reactions, evenly spaced; None if there are none."""
    chosen = _spread_reactions(rows, TRAINING_CLIPS)
    if not chosen:
        return None
    outputs, labels = predict(Subset(rows, chosen))
    scores = pearson_scores(outputs["intensities"], labels["labels"])
    mean = mean_where_labels_vary(scores, labels["labels"])
    return TrainScores(len(chosen), mean, dict(zip(names, scores.tolist(), strict=True)))


def describe_labels(labels: Tensor, names: list[str]) -> dict[str, LabelFacts]:
    """Count labelled clips and summarize the labels of each target; `labels` is (N, K) with NaN."""
    facts = {}
    for name, column in zip(names, labels.double().unbind(1), strict=True):
        known = column[~column.isnan()]
        facts[name] = LabelFacts(labelled=len(known))
        if len(known):
            most = int(known.unique(return_counts=True)[1].max())
            spread = _describe_spread(known)
            facts[name] = LabelFacts(
                len(known), **spread, share_of_the_most_frequent=most / len(known)
            )
    return facts


def describe_outputs(outputs: Tensors, names: list[str]) -> dict[str, OutputFacts]:
    """Summarize the calibrated intensities of each target, and the deviation of its logits."""
    facts = {}
    intensities, logits = outputs["intensities"].double(), outputs["logits"].double()
    for name, intensity, logit in zip(names, intensities.unbind(1), logits.unbind(1), strict=True):
        facts[name] = OutputFacts(
            **_describe_spread(intensity),
            least=intensity.min().item(),
            most=intensity.max().item(),
            deviation_of_logits=logit.std(correction=0).item(),
        )
    return facts


def _describe_spread(values: Tensor) -> dict[str, float]:
    return {
        "mean": values.mean().item(),
        "deviation": values.std(correction=0).item(),
        "share_at_0": (values == 0).double().mean().item(),
        "share_at_1": (values == 1).double().mean().item(),
    }


@torch.no_grad()
def describe_inputs(
    model: MMAMRNNetForIntensity, processor: MMAMRNNetVideoProcessor, rows: ClipDataset
) -> InputFacts | None:
    """Return mean, deviation and importance of each input channel; None without reactions.

    Importance (`drop`) is the loss of mean Pearson when clips exchange the channel. Uses at
    most 512 evenly spaced reactions; slow exchanges use fewer, and below 64 `drop` is None. A
    clip gets the channel of another clip, cut to its own length or extended by the last value
    (our choice). The pairing uses a fixed seed and is the same for all channels.
    """
    names = model.config.input_names
    most = max(1, min(INPUT_CLIPS, VALUES // (len(names) * processor.num_frames)))
    chosen = _spread_reactions(rows, most)
    if not chosen:
        return None
    items = rows.__getitems__(chosen)
    affect, frame_mask = processor.pad([item["affect"] for item in items])  # (n, T, A), (n, T)
    frames = affect[frame_mask].double()  # (N, A)
    exchanged = min(len(chosen), FRAMES // ((len(names) + 1) * affect.shape[1]))
    facts = InputFacts(len(chosen), 0, None, {})
    drops: list[float | None] = [None] * len(names)
    if exchanged >= min(LEAST_INPUT_CLIPS, len(chosen)) and exchanged > 1:
        few = thinned_indices(len(chosen), exchanged)
        labels = torch.stack([torch.as_tensor(items[number]["labels"]) for number in few.tolist()])
        facts.exchanged_clips = exchanged
        facts.mean_pearson, drops[:] = measure_drops(model, affect[few], frame_mask[few], labels)
    means, deviations = frames.mean(0).tolist(), frames.std(0, correction=0).tolist()
    lengths = frame_mask.sum(1, keepdim=True).double()  # (n, 1)
    clip_means = torch.where(frame_mask.unsqueeze(-1), affect, 0.0).double().sum(1) / lengths
    with_length = pearson_scores(clip_means, lengths.expand_as(clip_means)).tolist()
    channels = map(ChannelFacts, means, deviations, drops, with_length)
    read = set(model.config.gru_input_names)
    facts.channels = {
        name: fact for name, fact in zip(names, channels, strict=True) if name in read
    }
    return facts


def measure_drops(
    model: MMAMRNNetForIntensity, affect: Tensor, frame_mask: Tensor, labels: Tensor
) -> tuple[float, list[float]]:
    """Return the mean Pearson of n > 1 clips, and its loss when each of A channels is exchanged."""
    count, num_frames, channels = affect.shape
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    donors = torch.empty_like(order)
    donors[order] = order.roll(1)  # a single cycle: no clip is its own donor
    last = frame_mask.sum(1).clamp(min=1) - 1  # (n,)
    frames = torch.minimum(torch.arange(num_frames)[None], last[donors][:, None])  # (n, T)
    real = frame_mask.unsqueeze(-1)  # padding stays unchanged
    exchanged = torch.where(real, affect[donors[:, None], frames], affect)  # (n, T, A)

    def score(values: Tensor) -> float:
        intensities = []
        for part, mask in zip(values.split(PART), frame_mask.split(PART), strict=True):
            output = model(affect=part.to(model.device), frame_mask=mask.to(model.device))
            intensities.append(output.intensities.float().cpu())
        return mean_where_labels_vary(pearson_scores(torch.cat(intensities), labels), labels)

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
