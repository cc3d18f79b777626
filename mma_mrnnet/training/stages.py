"""The differences between the stages: data, model, scores, and treatment of the best model."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from mma_mrnnet.features.clip_rows import model_digest
from mma_mrnnet.files import content_digest
from mma_mrnnet.hub.checkpoints import load_extractor
from mma_mrnnet.model.configuration_mma_mrnnet import MMAConfig, MMAMRNNetConfig
from mma_mrnnet.model.labels import presence_target
from mma_mrnnet.model.modeling_mma import MMAModel
from mma_mrnnet.model.modeling_mma_mrnnet import MMAMRNNetForIntensity
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import (
    ClipData,
    ClipScores,
    EarlierRun,
    FrameData,
    IntensityCalibration,
    MMAResults,
    MRNNResults,
    Provenance,
    Results,
    RunResults,
    read_results,
)
from mma_mrnnet.training.arguments import NO_EXTRACTOR, TrainArguments
from mma_mrnnet.training.baselines import score_baselines, warn_if_beaten
from mma_mrnnet.training.calibration import (
    LEAST_SLOPE,
    STEEP_SLOPE,
    affine_calibration,
    calibrate_extractor,
)
from mma_mrnnet.training.clip_corpora import (
    ClipCorpus,
    ClipSplit,
    ExtractorInput,
    LoadedClips,
    TableInput,
    load_clips,
    read_corpus,
)
from mma_mrnnet.training.datasets import ClipCollator, ClipDataset, FrameCollator, FrameDataset
from mma_mrnnet.training.extractor_errors import measure_errors
from mma_mrnnet.training.facts import Predict, collect_clip_facts, collect_frame_facts
from mma_mrnnet.training.frame_corpora import describe_frames, frame_splits, untrained_outputs
from mma_mrnnet.training.reports import (
    Tensors,
    mean_label,
    mma_scores,
    mrnn_scores,
    score_frames,
    score_split,
    write_predictions,
)
from mma_mrnnet.training.sampling import Order, corpus_draws, mixed, shuffled

logger = logging.getLogger(__name__)


@dataclass
class Stage:
    """Everything `fit` needs for one stage.

    Attributes:
        name: `mma` or `mrnn`; also names the results file beside the model.
        order: draws the item numbers of one epoch of `train`.
        train_collator: items -> batch, with augmentation; `collator` does not augment.
        output_names: model output fields that `score` and `finish` read.
        loss_names: model output fields that the model's `objective` reads.
        score: (outputs, labels) of a split -> named scores.
        score_name: selects the best epoch; higher is better.
        finish: (best model, predict, the loop's records) -> results; may calibrate the model.
        data: description for the results.
        fingerprint: a digest of data, labels and extractor; the same in all processes and on
            resuming.
        held_out: labelled test clips, or None.
        carried_results: result files of an earlier stage to store with the model.
        earlier: the runs that made the weights of `model`.
        begin_epoch: called with the epoch number, from 0, before its first item is read.
    """

    name: str
    model: PreTrainedModel
    processor: MMAMRNNetVideoProcessor
    train: Dataset
    validation: Dataset
    order: Order
    train_collator: Callable[[list[Any]], Tensors]
    collator: Callable[[list[Any]], Tensors]
    output_names: tuple[str, ...]
    loss_names: tuple[str, ...]
    score: Callable[[Tensors, Tensors], dict[str, float]]
    score_name: str
    finish: Callable[[Any, Predict, RunResults], Results]
    data: FrameData | ClipData
    provenance: list[Provenance]
    fingerprint: str
    held_out: ClipDataset | None = None
    carried_results: list[Path] = field(default_factory=list)
    earlier: list[EarlierRun] = field(default_factory=list)
    begin_epoch: Callable[[int], None] = lambda epoch: None


def choose_score(args: TrainArguments, names: Sequence[str], default: str) -> str:
    """Validate `--monitor` and return it (default: the stage's score). Called before slow reads."""
    if args.monitor is not None and args.monitor not in names:
        raise ValueError(f"--monitor must be one of {', '.join(names)}; got {args.monitor!r}")
    return args.monitor or default


# Stage 1 ---------------------------------------------------------------------------------------

SCORE_OF = {
    "action_units": "action_unit_correlation",
    "expressions": "expression_f1",
    "valence_arousal": "valence_arousal_ccc",
}
"""The score of each channel; the last taught one selects the epoch, unless all are taught."""


def mma_stage(args: TrainArguments) -> Stage:
    """Prepare stage 1: train the extractor on face crops; settings and errors as `frame_splits`."""
    config = _extractor_config(args)
    start = None if args.mma is None else _Start.read(args.mma, args.action_units)
    if start is not None:
        config.backbone_config = start.model.config.backbone_config
        config.image_size = start.model.config.image_size
    teaches_all = len(args.channels) == len(SCORE_OF)
    own_score = "mean_of_tasks" if teaches_all else SCORE_OF[args.channels[-1]]
    score_name = choose_score(args, [*SCORE_OF.values(), "mean_of_tasks"], own_score)
    splits = frame_splits(args)
    train, validation = splits.train, splits.validation
    draws = corpus_draws(train.sources, train.expression, args.balance, args.repeats)
    data = describe_frames(args.data, splits, draws)
    logger.info("an epoch draws %s", data.items_an_epoch)
    _record_supervision(config, train)
    processor = MMAMRNNetVideoProcessor(
        size={"height": config.image_size, "width": config.image_size}, num_frames=args.num_frames
    )

    def finish(model: MMAModel, predict: Predict, run: RunResults) -> MMAResults:
        outputs, labels = predict(validation)
        outputs, calibration = calibrate_extractor(model, outputs, labels, validation)
        units, constructed = list(config.action_units), splits.constructed_sources
        return MMAResults(
            **vars(run),
            data=data,
            calibration=calibration,
            validation=score_frames(outputs, labels, validation, units),
            errors=measure_errors(
                outputs,
                labels,
                validation,
                units,
                constructed,
                graded_units=model.config.action_unit_loss == "squared_error",
            ),
            facts=collect_frame_facts(train, config),
        )

    torch.manual_seed(args.seed)
    model = MMAModel(config)
    provenance = list(splits.provenance)
    if start is not None:
        model.load_state_dict(start.model.state_dict())
        provenance += [entry for entry in start.provenance if entry not in provenance]
    cast("torch.nn.Module", model).to(memory_format=torch.channels_last)  # 12 % faster on a CPU
    outputs = ("valence_arousal", "expression_logits", "action_unit_logits")
    augmentations = args.augmentations if args.augment else ()
    return Stage(
        name="mma",
        model=model,
        processor=processor,
        train=train,
        validation=validation,
        order=mixed(list(draws.values())),
        train_collator=FrameCollator(
            processor, augmentations=augmentations, pairs=args.consistency_weight > 0
        ),
        collator=FrameCollator(processor),
        output_names=outputs,
        loss_names=outputs,
        score=lambda outputs, labels: mma_scores(outputs, labels, validation.intensity),
        score_name=score_name,
        finish=finish,
        data=data,
        provenance=provenance,
        fingerprint=content_digest(
            train.fingerprint(),
            validation.fingerprint(),
            *([] if start is None else [model_digest(start.model)]),
        ),
        begin_epoch=train.begin_epoch,
        earlier=[] if start is None else start.runs,
    )


@dataclass
class _Start:
    """The checkpoint from whose weights stage 1 starts: its training data and runs follow them."""

    model: MMAModel
    provenance: list[Provenance]
    runs: list[EarlierRun]

    @classmethod
    def read(cls, checkpoint: str, action_units: list[int]) -> "_Start":
        """Load a checkpoint; ValueError if its action units differ."""
        model, _ = load_extractor(checkpoint)
        if list(model.config.action_units) != list(action_units):
            units = " ".join(map(str, model.config.action_units))
            raise ValueError(
                f"--mma {checkpoint} has other action units: give --action_units {units}"
            )
        path = Path(checkpoint, MMAResults.name_of_file)
        results = read_results(path) if path.is_file() else None
        if not isinstance(results, RunResults):
            unknown = Provenance(f"not recorded (weights of {Path(checkpoint).name})")
            return cls(model, [unknown], [])
        runs = [*results.earlier, EarlierRun(results.command, results.training.seconds)]
        return cls(model, list(results.provenance or ()), runs)


def _extractor_config(args: TrainArguments) -> MMAConfig:
    return MMAConfig(
        backbone_config={
            "layer_type": args.layer_type,
            "embedding_size": args.embedding_size,
            "hidden_sizes": args.hidden_sizes,
            "depths": args.depths,
            "downsample_in_first_stage": args.downsample_in_first_stage,
        },
        image_size=args.image_size,
        action_units=args.action_units,
        valence_arousal_weight=args.valence_arousal_weight,
        expression_weight=args.expression_weight,
        action_unit_weight=args.action_unit_weight,
        action_unit_loss=args.action_unit_loss,
        action_unit_concordance_weight=args.action_unit_concordance_weight,
        distribution_matching=args.distribution_matching,
        distribution_matching_weight=args.distribution_matching_weight,
        co_annotation=args.co_annotation,
        consistency_weight=args.consistency_weight,
        dropout=args.dropout,
    )


LEAST_DEVIATION = 0.03
"""Of a unit's target: a unit that hardly varies must not outweigh the others (our choice)."""


def _record_supervision(config: MMAConfig, train: FrameDataset) -> None:
    """Record in the config which units have labels, how they vary, and what nothing teaches."""
    if config.action_unit_loss == "squared_error":
        target = presence_target(train.intensity).double().numpy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a unit without labels
            deviations = np.nan_to_num(np.nanstd(target, axis=0), nan=1.0)
        config.action_unit_deviations = np.maximum(deviations, LEAST_DEVIATION).tolist()
    labelled = (~train.intensity.isnan()).any(0).tolist()
    units = zip(config.action_units, labelled, strict=True)
    config.supervised_action_units = [unit for unit, is_labelled in units if is_labelled]
    config.untrained_outputs = untrained_outputs(train, config)
    if config.untrained_outputs:
        logger.warning("nothing teaches these outputs: %s", ", ".join(config.untrained_outputs))


# Stage 2 ---------------------------------------------------------------------------------------


def mrnn_stage(args: TrainArguments) -> Stage:
    """Prepare stage 2: train the recurrent part on clips; the extractor inside stays fixed.

    `args.data` is `simulated`, `clips:FOLDER` or `hume:FOLDER`; `args.mma` is the stage-1
    checkpoint (None for feature tables). Raises ValueError for other data or without a
    checkpoint there.
    """
    corpus = read_corpus(args)
    score_name = choose_score(args, [*corpus.names, "mean_pearson"], "mean_pearson")
    torch.manual_seed(args.seed)
    model, processor, clips = build_model(args, corpus)
    splits = clips.splits
    _warn_of_long_clips(splits, processor)
    names, train, validation = corpus.names, splits["train"].rows, splits["validation"].rows

    def finish(model: MMAMRNNetForIntensity, predict: Predict, run: RunResults) -> MRNNResults:
        before, calibration = _calibrate(model, predict, splits)
        scores, predicted = report_splits(predict, splits, names, corpus.id_column, args.output)
        results = MRNNResults(
            **vars(run),
            data=clips.data,
            calibration=calibration,
            validation_before_calibration=before,
            validation=scores["validation"],
            test=scores.get("test"),
            facts=collect_clip_facts(model, processor, predict, splits, predicted),
            baselines=score_baselines(model, splits),
        )
        warn_if_beaten(results)
        return results

    behind = [] if model.mma is None else [model_digest(model.mma)]
    if corpus.noise is not None:  # its file is not among the settings
        behind.append(repr(corpus.noise))
    return Stage(
        name="mrnn",
        model=model,
        processor=processor,
        train=train,
        validation=validation,
        order=shuffled(len(train)),
        train_collator=ClipCollator(processor),
        collator=ClipCollator(processor),
        output_names=("intensities", "logits"),
        loss_names=("logits",),
        score=lambda outputs, labels: mrnn_scores(outputs, labels, validation, names),
        score_name=score_name,
        finish=finish,
        data=clips.data,
        provenance=clips.provenance,
        held_out=held_out_of(splits),
        fingerprint=content_digest(*clips.fingerprint, *behind),
        carried_results=sorted(Path(args.mma).glob(MMAResults.name_of_file)) if args.mma else [],
    )


def build_model(
    args: TrainArguments, corpus: ClipCorpus
) -> tuple[MMAMRNNetForIntensity, MMAMRNNetVideoProcessor, LoadedClips]:
    """Build a new model for a corpus, with its processor and clips.

    Videos, crops and simulated clips get a model around the stage-1 checkpoint `args.mma`.
    Feature tables get a model without an extractor, with scaling fitted on the training clips.
    Raises ValueError without a checkpoint, and as `load_clips`.
    """
    if corpus.holds_tables:
        clips = load_clips(corpus, args, TableInput(args.features))
        config = MMAMRNNetConfig(feature_names=clips.feature_names, **_recurrent_part(args, corpus))
        model = MMAMRNNetForIntensity(config)
        fit_scaling(model, clips.splits["train"].rows)
        return model, MMAMRNNetVideoProcessor(**_lengths(args)), clips
    if args.mma is None:
        raise ValueError(NO_EXTRACTOR)
    fields = {"affect_transform": args.affect_transform, **_recurrent_part(args, corpus)}
    try:
        model = MMAMRNNetForIntensity.from_mma_pretrained(args.mma, **fields)
        processor = MMAMRNNetVideoProcessor.from_pretrained(args.mma, **_lengths(args))
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"--mma {args.mma}: not a checkpoint that can be loaded: {error}"
        ) from error
    extractor = cast("MMAModel", model.mma)
    # Drop this machine's path, because config.json is shared.
    cast("MMAConfig", model.config.mma_config)._name_or_path = ""
    clips = load_clips(corpus, args, ExtractorInput(extractor, processor))
    if model.config.scales_inputs:
        fit_scaling(model, clips.splits["train"].rows)
    return model, processor, clips


def _lengths(args: TrainArguments) -> dict[str, Any]:
    return {
        "num_frames": args.num_frames,
        "fps": args.sampling_fps,
        "length_policy": args.length_policy,
    }


def _recurrent_part(args: TrainArguments, corpus: ClipCorpus) -> dict[str, Any]:
    """Return the fields of `MMAMRNNetConfig` that do not concern the input of a frame."""
    return {
        "channels": args.channels,
        "num_frames": args.num_frames,
        "sampling_fps": args.sampling_fps,
        "hidden_size": args.hidden_size,
        "num_hidden_layers": args.num_layers,
        "temporal_pooling": args.temporal_pooling,
        "dense_size": args.dense_size,
        "dropout": args.dropout,
        "intensity_loss": args.intensity_loss,
        "quiet_weight": args.quiet_weight,
        "id2label": dict(enumerate(corpus.names)),
        "label2id": {name: number for number, name in enumerate(corpus.names)},
        "relative_labels": corpus.relative_labels,
        "simulated_labels": corpus.simulated_labels,
    }


CLIPS_AT_ONCE = 256  # clips in memory while the scaling is fitted


DEVIATIONS = 5.0
"""Deviations of a feature that become 1 in the GRU; more saturates its gates."""


def fit_scaling(model: MMAMRNNetForIntensity, clips: ClipDataset) -> None:
    """Set the scaling of a model's inputs from training clips."""
    mean, deviation = measure_inputs(model, clips)
    model.set_feature_scaling(mean, DEVIATIONS * deviation)


def measure_inputs(model: MMAMRNNetForIntensity, clips: ClipDataset) -> tuple[Tensor, Tensor]:
    """Return (A,) float32 mean and deviation of the transformed inputs over all frames.

    The deviation of a constant input is 1.
    """
    sums, count, low, high = 0.0, 0, np.inf, -np.inf
    for frames in _iterate_frames(model, clips):
        sums, count = sums + frames.sum(0, dtype=np.float64), count + len(frames)
        low, high = np.minimum(low, frames.min(0)), np.maximum(high, frames.max(0))
    mean = sums / count
    squares = sum(((frames - mean) ** 2).sum(0) for frames in _iterate_frames(model, clips))
    scale = torch.from_numpy(np.sqrt(squares / count)).float()
    changes = torch.from_numpy(high > low)
    return torch.from_numpy(mean).float(), torch.where(changes & (scale > 0), scale, 1.0)


def _iterate_frames(model: MMAMRNNetForIntensity, clips: ClipDataset) -> Iterator[np.ndarray]:
    """Yield (frames, A) chunks of several clips, so that memory never holds all of them."""
    for first in range(0, len(clips), CLIPS_AT_ONCE):
        items = clips.__getitems__([*range(first, min(first + CLIPS_AT_ONCE, len(clips)))])
        frames = torch.from_numpy(np.concatenate([item["affect"] for item in items]))
        yield model.transform_inputs(frames).numpy()


def held_out_of(splits: dict[str, ClipSplit]) -> ClipDataset | None:
    """Return the labelled test clips, or None."""
    rows = splits["test"].rows if "test" in splits else None
    return rows if rows else None


def _warn_of_long_clips(splits: dict[str, ClipSplit], processor: MMAMRNNetVideoProcessor) -> None:
    most = processor.num_frames
    lengths = np.concatenate([split.with_face.lengths for split in splits.values()])
    if (long := int((lengths > most).sum())) > 0:
        logger.warning(
            "%d of %d clips have more than --num_frames %d frames, up to %d: they are %s %d",
            *(long, len(lengths), most, lengths.max(), processor.shortened(), most),
        )


def _calibrate(
    model: MMAMRNNetForIntensity, predict: Predict, splits: dict[str, ClipSplit]
) -> tuple[ClipScores, IntensityCalibration]:
    """Calibrate the model on validation; return the scores before, and the calibration."""
    names = model.config.label_names
    outputs, labels = predict(splits["validation"].rows)
    training_mean = mean_label(splits["train"].files)
    before = score_split(outputs["intensities"], splits["validation"], names, training_mean)
    scale, shift = affine_calibration(outputs["intensities"], labels["labels"])
    flat = [name for name, slope in zip(names, scale.tolist(), strict=True) if slope <= LEAST_SLOPE]
    if flat:
        logger.warning(
            "on validation %s do not rise with their labels: calibrated to nearly a constant",
            ", ".join(flat),
        )
    labelled = (~labels["labels"].isnan()).sum(0).tolist()
    for name, slope, clips in zip(names, scale.tolist(), labelled, strict=True):
        if slope >= STEEP_SLOPE:
            logger.warning(
                "calibration of %s is a line of slope %.1f, fitted on %d clips: it stretches noise",
                *(name, slope, clips),
            )
    model.set_calibration(scale.to(model.device), shift.to(model.device))
    return before, IntensityCalibration(scale.tolist(), shift.tolist(), "validation", labelled)


def report_splits(
    predict: Predict, splits: dict[str, ClipSplit], names: list[str], id_column: str, output: Path
) -> tuple[dict[str, ClipScores], dict[str, Tensors]]:
    """Score validation and test, and write the predictions of their real clips to `output`.

    Returns scores of each labelled split, and outputs of each split with a predictable clip.
    """
    scores: dict[str, ClipScores] = {}
    predicted: dict[str, Tensors] = {}
    training_mean = mean_label(splits["train"].files)
    for name in [name for name in ("validation", "test") if name in splits]:
        split, intensities = splits[name], torch.zeros(0, len(names))
        if len(split.with_face):
            predicted[name] = predict(split.with_face)[0]
            intensities = predicted[name]["intensities"]
        if split.files:
            path = output / f"predictions_{name}.csv"
            write_predictions(path, intensities, split, id_column, training_mean)
        if split.is_labelled:
            scores[name] = score_split(intensities, split, names, training_mean)
    return scores, predicted
