"""Configs of both networks; every field is validated."""

import importlib
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, ResNetConfig
from transformers.utils import PushToHubMixin

from .labels import (
    ACTION_UNITS,
    CHANNELS,
    EXPRESSIONS,
    REACTIONS,
    action_unit_name,
    affect_names,
    caveats,
    check_channels,
)

ACTION_UNIT_LOSSES = ("cross_entropy", "squared_error")
CO_ANNOTATIONS = ("off", "soft", "hard")
DISTRIBUTION_MATCHING = ("kl", "bce", "literal", "off")
INTENSITY_LOSSES = ("pearson", "ccc", "mse")
OUTPUT_ACTIVATIONS = ("sigmoid", "linear")
TEMPORAL_POOLINGS = ("mask", "padded", "last", "mean", "attention", "statistics")
AFFECT_TRANSFORMS = ("none", "logits")

LOSS_WEIGHTS = (
    "valence_arousal_weight",
    "expression_weight",
    "action_unit_weight",
    "action_unit_concordance_weight",
    "co_annotation_weight",
    "distribution_matching_weight",
    "consistency_weight",
)

HUB_BACKBONE_FIELDS = ("backbone", "use_pretrained_backbone", "use_timm_backbone")
"""Fields by which transformers would fetch a backbone from the Hub."""

MOST_PARAMETERS = 2 * 10**8
"""A config that asks for more is refused before memory is spent (our choice, like what follows)."""
MOST_LAYERS = 1000
MOST_UNITS = 4096
MOST_TARGETS = 10_000
MOST_IMAGE_SIZE = 2048
MOST_FRAMES = 100_000


def _require_one_of(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name} must be one of {', '.join(accepted)}; got {value!r}")


def _require_at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}; got {value!r}")


def _require_at_most(name: str, value: float, most: float) -> None:
    if value > most:
        raise ValueError(f"{name} may be at most {most}; got {value!r:.80}")


def _require_names(name: str, values: Sequence[object]) -> None:
    """Check that names are one-line texts that tables, cards and terminals can show."""
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{name} must hold texts; got {value!r:.80}")
        if any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in value):
            raise ValueError(
                f"{name} must not hold control characters or half characters; got {value!a:.80}"
            )


class WithCard(PushToHubMixin):
    """Part of a repository that writes the card whenever transformers uploads it."""

    def _upload_modified_files(self, *args: Any, **kwargs: Any) -> Any:
        """Write the card, then upload (transformers' hook of every push)."""
        try:
            # Imported by name: an exported copy of this file works without the package.
            export = importlib.import_module("mma_mrnnet.hub.export")
        except ImportError as error:
            raise ValueError(
                "only the package mma-mrnnet writes the card of a push (licence, cautions, "
                "results), and it is not installed here: write a README.md yourself and upload "
                "the saved folder with huggingface_hub's upload_folder"
            ) from error
        export.write_card(self, Path(args[0]))
        return super()._upload_modified_files(*args, **kwargs)


class NamedOutputsConfig(WithCard, PreTrainedConfig):
    """A config that derives `label2id` from `id2label`."""

    def __post_init__(self, **kwargs: Any) -> None:
        if self.id2label is not None and not isinstance(self.id2label, dict):
            raise ValueError(
                "id2label must be an object of numbers and names, such as {0: 'joy'}; "
                f"got {self.id2label!r:.80}"
            )
        names = {} if self.id2label is None else self.id2label
        _require_at_most("num_labels", kwargs.get("num_labels") or len(names), MOST_TARGETS)
        _require_names("id2label", list(names.values()))
        super().__post_init__(**kwargs)
        self.label2id = {name: index for index, name in self.output_names.items()}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Load as transformers does; also validate an `id2label` given as a keyword."""
        if kwargs.get("id2label") is not None:
            config_dict = {**config_dict, "id2label": kwargs.pop("id2label")}
        return super().from_dict(config_dict, **kwargs)

    @property
    def output_names(self) -> dict[int, str]:
        """`id2label`, typed as filled in."""
        return cast("dict[int, str]", self.id2label)


@strict
class MMAConfig(NamedOutputsConfig):
    """Config of stage 1, the multi-task extractor of one face crop.

    Defaults follow the paper where it gives a value: a residual network on 112 x 112
    crops. ResNet-50, the 17 action units, the tanh on valence-arousal and the loss
    weights of 1 are our choice.

    Args:
        backbone_config: transformers' `ResNetConfig` (or its fields): depth and width.
        image_size: height and width of a crop in pixels.
        action_units: FACS numbers, ascending, in the order of the logits.
        supervised_action_units: units with a label in training; None if not recorded.
            The others were learnt from the prior alone and are shown as "prior only".
        untrained_outputs: names of outputs without any training signal: their values
            are arbitrary. None if not recorded.
        distribution_matching: `kl`, `bce`, `literal` or `off`; see `losses`.
        binary_prior: use 0 or 1 (prototypical) in the prior, not shares of people.
        co_annotation: `off`; `soft`: images with action-unit labels only get a
            distribution over expressions; `hard`: they get an expression, and images
            with an expression only get units. See `losses`.
        co_annotation_temperature: of the soft distribution. The default (our choice)
            turns scores of 0.9 and 0.5 into odds of 55 to 1.
        valence_arousal_weight: weight of 1 - CCC in the loss.
        expression_weight: weight of the cross-entropy.
        action_unit_loss: `cross_entropy`, binary and masked; or `squared_error` of the units'
            outputs, for graded labels (our addition).
        action_unit_deviations: standard deviation of each unit's target in training; the
            squared error is in these units. None: 1 for each.
        action_unit_weight: weight of `action_unit_loss`.
        action_unit_concordance_weight: weight of 1 - mean CCC between the units'
            probabilities and targets (our addition, off by default). It gives rare and
            frequent units the same weight.
        distribution_matching_weight: weight of the distribution-matching loss.
        co_annotation_weight: weight of the soft distribution's cross-entropy.
        consistency_weight: weight of `consistency_loss` between two augmented copies of a crop,
            for batches that hold such pairs (our addition).
        dropout: on the pooled features.
        initializer_range: standard deviation of the heads' initial weights.

    Raises:
        StrictDataclassError: (huggingface_hub's) a wrong type or a value out of range.
    """

    model_type = "mma"
    base_config_key = "mma_config"
    # transformers also accepts a class here.
    sub_configs_defaults: ClassVar = {"backbone_config": ResNetConfig}  # type: ignore[dict-item]

    backbone_config: dict | PreTrainedConfig | None = None
    image_size: int = 112
    action_units: list[int] | tuple[int, ...] = ACTION_UNITS
    supervised_action_units: list[int] | tuple[int, ...] | None = None
    untrained_outputs: list[str] | tuple[str, ...] | None = None
    distribution_matching: str = "kl"
    binary_prior: bool = False
    co_annotation: str = "off"
    co_annotation_temperature: float | int = 0.1
    action_unit_loss: str = "cross_entropy"
    action_unit_deviations: list[float] | tuple[float, ...] | None = None
    valence_arousal_weight: float | int = 1.0
    expression_weight: float | int = 1.0
    action_unit_weight: float | int = 1.0
    action_unit_concordance_weight: float | int = 0.0
    distribution_matching_weight: float | int = 1.0
    co_annotation_weight: float | int = 1.0
    consistency_weight: float | int = 0.0
    dropout: float | int = 0.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        self.action_units = list(self.action_units)
        if isinstance(self.backbone_config, dict):
            self.backbone_config = {"model_type": "resnet", **self.backbone_config}
            kind = self.backbone_config["model_type"]
            # Before transformers builds another kind's config, which may ask the Hub.
            _require_one_of("model_type of backbone_config", kind, ("resnet",))
        named = [name for name in HUB_BACKBONE_FIELDS if kwargs.get(name)]
        if named:
            raise ValueError(f"{named[0]} is not accepted; a backbone is given by backbone_config")
        if self.supervised_action_units is not None:
            self.supervised_action_units = list(self.supervised_action_units)
        if self.id2label is None and kwargs.get("num_labels") is None:
            self.id2label = dict(enumerate(EXPRESSIONS))
        super().__post_init__(**kwargs)

    @property
    def resnet_config(self) -> ResNetConfig:
        """`backbone_config`, typed as filled in."""
        return cast("ResNetConfig", self.backbone_config)

    @property
    def affect_size(self) -> int:
        """Length of the affect vector: 2 + 7 + the number of action units."""
        return len(affect_names(self.action_units))

    @property
    def prior_only_action_units(self) -> list[int]:
        """Units without a label in training, learnt from the expression prior alone."""
        if self.supervised_action_units is None:
            return []
        taught = set(self.supervised_action_units)
        untrained = self.untrained_outputs or ()
        return [
            unit
            for unit in self.action_units
            if unit not in taught and action_unit_name(unit) not in untrained
        ]

    def validate_sizes(self) -> None:
        """Check sizes and rates."""
        _require_at_least("image_size", self.image_size, 32)
        _require_at_most("image_size", self.image_size, MOST_IMAGE_SIZE)
        backbone = self.resnet_config
        if getattr(backbone, "model_type", None) != "resnet":
            raise ValueError(f"backbone_config must be a ResNet's; got {backbone!r:.80}")
        depths = cast("Sequence[int]", backbone.depths)
        widths = cast("Sequence[int]", backbone.hidden_sizes)
        if len(depths) != len(widths) or not depths or min(*depths, *widths) < 1:
            raise ValueError(
                "backbone_config needs one depth and one hidden size above 0 for each stage; "
                f"got {depths!r:.80}, {widths!r:.80}"
            )
        _require_at_most("depths of backbone_config, in all,", sum(depths), MOST_LAYERS)
        # A basic unit has two 3 x 3 convolutions; a bottleneck's work on a quarter of the width.
        weights = 2 if backbone.layer_type == "bottleneck" else 18
        parameters = sum(
            weights * depth * width**2 for depth, width in zip(depths, widths, strict=True)
        )
        parameters += 49 * 3 * backbone.embedding_size
        _require_at_most("parameters of backbone_config", parameters, MOST_PARAMETERS)
        _require_at_least("dropout", self.dropout, 0.0)
        if self.dropout >= 1:
            raise ValueError(f"dropout must be below 1; got {self.dropout!r}")

    def validate_action_units(self) -> None:
        """Check that units are ascending FACS numbers and include the supervised ones."""
        units = self.action_units
        if not units or units != sorted(set(units)) or units[0] < 1 or units[-1] > 999:
            raise ValueError(
                "action_units must be ascending FACS numbers (1 to 999), each once; "
                f"got {units!r:.200}"
            )
        unknown = set(self.supervised_action_units or ()) - set(self.action_units)
        if unknown:
            raise ValueError(
                f"supervised_action_units must be among action_units; {sorted(unknown)} are not"
            )

    def validate_losses(self) -> None:
        """Check the forms and the weights of the losses."""
        _require_one_of("distribution_matching", self.distribution_matching, DISTRIBUTION_MATCHING)
        _require_one_of("co_annotation", self.co_annotation, CO_ANNOTATIONS)
        _require_one_of("action_unit_loss", self.action_unit_loss, ACTION_UNIT_LOSSES)
        deviations = self.action_unit_deviations
        if deviations is not None and (
            len(deviations) != len(self.action_units) or not min(deviations) > 0
        ):
            raise ValueError(
                f"action_unit_deviations needs {len(self.action_units)} numbers above 0, one per "
                f"unit; got {deviations!r:.200}"
            )
        if not self.co_annotation_temperature > 0:
            raise ValueError(
                f"co_annotation_temperature must be above 0; got {self.co_annotation_temperature!r}"
            )
        for name in LOSS_WEIGHTS:
            _require_at_least(name, getattr(self, name), 0.0)


@strict
class MMAMRNNetConfig(NamedOutputsConfig):
    """Config of stage 2, the masked recurrent network over a clip; contains stage 1's.

    `id2label` names the K targets; the default is Hume-Reaction's seven.

    Args:
        mma_config: the extractor's `MMAConfig` (or its fields); None with `feature_names`.
        feature_names: table columns, in input order, that replace the extractor's affect.
            Such a model has no extractor. None: use the extractor.
        channels: the parts of the affect (`labels.CHANNELS`) that the GRU reads, in their
            order; `affect` always holds all of them. Must be all with `feature_names`.
        num_frames: T, the maximum number of face frames; the processor shortens longer clips.
        sampling_fps: frames per second that stage 2 expects. The dense layer has weights
            for each position, so the model depends on this rate.
        hidden_size: H, hidden units of the GRU.
        num_hidden_layers: layers of the GRU.
        temporal_pooling: input of the dense layer. `mask` (the paper's): the outputs of all
            T frames, 0 if padded. For comparison (our choice): `padded`: no mask, the GRU
            also reads the padding; `last`: the last real frame; `mean`: the mean over
            real frames; `attention`: their mean weighted by a learnt score; `statistics`: six
            vectors over the real frames, see `MaskedRNN.split_by_frame`.
        affect_transform: `logits`: the GRU reads the logits of the affect's probabilities
            (clipped to [0.001, 0.999]) and valence-arousal as they are, each (value - mean) /
            scale. `none`: it reads the affect itself. Must be `none` with `feature_names`,
            which are always scaled.
        dense_size: units of the dense layer after the mask.
        dropout: on the dense layer's output.
        output_activation: `sigmoid` (intensities in [0, 1]) or `linear`.
        intensity_loss: `pearson` (1 - mean Pearson, the paper's), `ccc` or `mse`.
        quiet_weight: None: a clip whose labels are all 0 is a clip like any other. A number
            (our addition): the loss over the other clips, which asks for what is shown, plus
            this weight times the loss over all clips, which asks whether anything is.
        freeze_mma: keep the extractor fixed and in eval mode, as in the paper's stage 2.
        calibrated: whether each output has a fitted affine calibration; without it, targets
            have different scales and must not be ranked.
        relative_labels: whether each label vector was divided by its own maximum, as in
            Hume-Reaction: intensities then compare within a clip only.
        simulated_labels: whether the targets came from a simulator, not from people.
        initializer_range: standard deviation of the dense layers' initial weights.

    Raises:
        StrictDataclassError: (huggingface_hub's) a wrong type or a value out of range.
    """

    model_type = "mma_mrnnet"
    # transformers also accepts a class here.
    sub_configs_defaults: ClassVar = {"mma_config": MMAConfig}  # type: ignore[dict-item]
    # `Trainer` then gives `compute_metrics` the intensities, without every
    # frame's affect.
    keys_to_ignore_at_inference: ClassVar = ["logits", "affect", "hidden_states"]

    mma_config: dict | PreTrainedConfig | None = None
    feature_names: list[str] | tuple[str, ...] | None = None
    channels: list[str] | tuple[str, ...] = CHANNELS
    num_frames: int = 30
    sampling_fps: float | int = 2.0
    hidden_size: int = 128
    num_hidden_layers: int = 1
    temporal_pooling: str = "mask"
    affect_transform: str = "none"
    dense_size: int = 32
    dropout: float | int = 0.0
    output_activation: str = "sigmoid"
    intensity_loss: str = "pearson"
    quiet_weight: float | int | None = None
    freeze_mma: bool = True
    calibrated: bool = False
    relative_labels: bool = True
    simulated_labels: bool = False
    initializer_range: float = 0.02
    problem_type: (
        Literal["regression", "single_label_classification", "multi_label_classification"] | None
    ) = "regression"

    def __post_init__(self, **kwargs: Any) -> None:
        if self.feature_names is not None:
            if self.mma_config is not None:
                raise ValueError(
                    "give mma_config or feature_names: "
                    "a model that reads features holds no extractor"
                )
            self.feature_names = list(self.feature_names)
        self.channels = list(self.channels)
        if self.id2label is None and kwargs.get("num_labels") is None:
            self.id2label = dict(enumerate(REACTIONS))
        super().__post_init__(**kwargs)
        if self.feature_names is not None:
            self.mma_config = None  # transformers fills every missing field with a default

    @property
    def extractor_config(self) -> MMAConfig:
        """`mma_config`, typed as filled in; only for a model with an extractor."""
        return cast("MMAConfig", self.mma_config)

    @property
    def input_names(self) -> list[str]:
        """Names of the entries of `affect`, the input of each frame."""
        if self.feature_names is not None:
            return list(self.feature_names)
        return list(affect_names(self.extractor_config.action_units))

    @property
    def input_size(self) -> int:
        """Length of one frame's vector."""
        return len(self.input_names)

    @property
    def gru_input_names(self) -> list[str]:
        """Names of the entries that the GRU reads: all, or those of `channels`."""
        if self.feature_names is not None:
            return self.input_names
        return list(affect_names(self.extractor_config.action_units, self.channels))

    @property
    def gru_input_size(self) -> int:
        """Number of entries that the GRU reads."""
        return len(self.gru_input_names)

    @property
    def channel_columns(self) -> list[int]:
        """Positions of `gru_input_names` in `input_names`, ascending."""
        chosen = set(self.gru_input_names)
        return [column for column, name in enumerate(self.input_names) if name in chosen]

    @property
    def scales_inputs(self) -> bool:
        """Whether the GRU reads (value - mean) / scale, with both kept beside the weights."""
        return self.feature_names is not None or self.affect_transform != "none"

    @property
    def prior_only_action_units(self) -> list[int]:
        """The extractor's units without a label in training; empty without an extractor."""
        return [] if self.mma_config is None else self.extractor_config.prior_only_action_units

    @property
    def untrained_outputs(self) -> list[str]:
        """The extractor's outputs without a training signal; empty without an extractor."""
        return (
            [] if self.mma_config is None else list(self.extractor_config.untrained_outputs or ())
        )

    @property
    def label_names(self) -> list[str]:
        """Names of the K targets in output order."""
        return [self.output_names[index] for index in range(len(self.output_names))]

    def caveats(self) -> list[str]:
        """Return the sentences that must be shown with this model's intensities."""
        return caveats(
            simulated=self.simulated_labels,
            relative=self.relative_labels,
            calibrated=self.calibrated,
        )

    def validate_sizes(self) -> None:
        """Check sizes and rates."""
        for name in ("num_frames", "hidden_size", "num_hidden_layers", "dense_size"):
            _require_at_least(name, getattr(self, name), 1)
        _require_at_most("num_frames", self.num_frames, MOST_FRAMES)
        _require_at_most("num_hidden_layers", self.num_hidden_layers, MOST_LAYERS)
        _require_at_most("hidden_size", self.hidden_size, MOST_UNITS)
        units, inputs, targets = self.hidden_size, self.gru_input_size, len(self.output_names)
        frames = self.num_frames if self.temporal_pooling in ("mask", "padded") else 6
        parameters = 3 * units * (inputs + units + 2 * units * (self.num_hidden_layers - 1))
        parameters += self.dense_size * (frames * units + targets)
        _require_at_most("parameters of stage 2", parameters, MOST_PARAMETERS)
        if not 0 < self.sampling_fps < float("inf"):
            raise ValueError(
                "sampling_fps must be a positive number of frames a second; "
                f"got {self.sampling_fps!r}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); got {self.dropout!r}")

    def validate_feature_names(self) -> None:
        """Check that feature names are given if needed, and unique."""
        names = self.feature_names
        if names is None:
            return
        if not names or "" in names:
            raise ValueError(
                f"feature_names must name at least one feature, none of them empty; got {names}"
            )
        _require_names("feature_names", names)
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"feature_names must name each feature once; {repeated} are repeated")

    def validate_channels(self) -> None:
        """Check `channels`."""
        check_channels("channels", self.channels)
        if self.feature_names is not None and len(self.channels) < len(CHANNELS):
            raise ValueError(
                "channels are an extractor's, and this model reads features: choose among these by "
                f"feature_names (--features) and leave channels out; got {self.channels}"
            )

    def validate_labels(self) -> None:
        """Check that target names are unique, since tables and cards use them."""
        names = self.output_names
        if sorted(names) != list(range(len(names))) or len(set(names.values())) != len(names):
            raise ValueError(
                f"id2label must name the targets 0 to {len(names) - 1}, each differently; "
                f"got {names}"
            )

    def validate_choices(self) -> None:
        """Check the fields with a fixed set of values."""
        _require_one_of("temporal_pooling", self.temporal_pooling, TEMPORAL_POOLINGS)
        _require_one_of("affect_transform", self.affect_transform, AFFECT_TRANSFORMS)
        if self.feature_names is not None and self.affect_transform != "none":
            raise ValueError(
                "affect_transform is for an extractor's affect, and this model reads features, "
                f"which are scaled without it; got {self.affect_transform!r}"
            )
        if self.quiet_weight is not None:
            _require_at_least("quiet_weight", self.quiet_weight, 0.0)
        _require_one_of("output_activation", self.output_activation, OUTPUT_ACTIVATIONS)
        _require_one_of("intensity_loss", self.intensity_loss, INTENSITY_LOSSES)
        if self.problem_type not in (None, "regression"):
            raise ValueError(
                f"problem_type must be regression, as intensities are; got {self.problem_type!r}"
            )


MMAConfig.register_for_auto_class()
MMAMRNNetConfig.register_for_auto_class()
