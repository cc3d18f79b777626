"""Stage 1, MMA: from a face crop to valence-arousal, seven expressions and action units."""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel, ResNetModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.resnet.modeling_resnet import ResNetStage
from transformers.utils.generic import ModelOutput, TransformersKwargs, can_return_tuple

from .configuration_mma_mrnnet import MMAConfig, WithCard
from .labels import EXPRESSIONS, VALENCE_AROUSAL, pack_affect
from .losses import (
    action_unit_loss,
    concordance_loss,
    consistency_loss,
    distribution_matching_loss,
    expression_loss,
    hard_co_annotation,
    soft_co_annotation,
    soft_expression_loss,
    standardised_error_loss,
)
from .priors import action_unit_prior, prototypical_units

HOOKS = frozenset({*TransformersKwargs.__annotations__, "return_loss", "use_cache"})
"""Keywords of `forward` that transformers and its `Trainer` pass to any model; ours ignore them."""


def check_keywords(kwargs: dict[str, Any], forward: Callable[..., Any]) -> None:
    """Raise TypeError for a keyword of `forward` that is neither its own nor transformers'."""
    if unknown := kwargs.keys() - HOOKS:
        accepted = [name for name in inspect.signature(forward).parameters if name != "self"]
        raise TypeError(
            f"forward does not know {', '.join(sorted(unknown))}; "
            f"accepted are {', '.join(accepted[:-1])}"
        )


class SafeWeights(WithCard, PreTrainedModel):
    """A model that loads safetensors only, never a pickle, and is pushed with its card."""

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self:
        """Load as transformers does, from safetensors only."""
        kwargs["use_safetensors"] = True
        return super().from_pretrained(*args, **kwargs)

    def get_input_embeddings(self) -> None:  # type: ignore[override]
        """Return None: there are no embeddings (transformers and torchao ask)."""

    @staticmethod
    def _load_pretrained_model(
        model: PreTrainedModel,
        state_dict: dict | None,
        checkpoint_files: list[str] | None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        # An index or a config can name a pickle, which transformers would load.
        for file in checkpoint_files or ():
            if not file.endswith(".safetensors"):
                raise ValueError(f"{file}: weights are read from .safetensors files only")
        return PreTrainedModel._load_pretrained_model(
            model, state_dict, checkpoint_files, *args, **kwargs
        )


@dataclass
class MMAOutput(ModelOutput):
    """Output of stage 1 for N face crops.

    Attributes:
        loss: scalar, the weighted sum of the masked losses; None without labels.
        valence_arousal: (N, 2) in [-1, 1].
        expression_logits: (N, 7) before the softmax, in the order of `labels.EXPRESSIONS`.
        action_unit_logits: (N, A) before the sigmoid, in the order of `config.action_units`.
        hidden_states: the backbone's feature maps; None unless requested.
    """

    # All but `loss` and `hidden_states` are always set; `ModelOutput` requires defaults.
    loss: Tensor | None = None
    valence_arousal: Tensor = None  # type: ignore[assignment]
    expression_logits: Tensor = None  # type: ignore[assignment]
    action_unit_logits: Tensor = None  # type: ignore[assignment]
    hidden_states: tuple[Tensor, ...] | None = None

    @property
    def affect(self) -> Tensor:
        """(N, 2 + 7 + A) float32 valence, arousal and probabilities, named by `affect_names`."""
        return pack_affect(self.valence_arousal, self.expression_logits, self.action_unit_logits)


class MMAPreTrainedModel(SafeWeights):
    """Class settings that transformers reads for stage 1."""

    config: MMAConfig
    # The attribute's name in stage 2: `MMAModel` loads stage-2 repositories too.
    base_model_prefix = "mma"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    accepts_loss_kwargs = False
    supports_gradient_checkpointing = True
    # A device map must not split a residual block.
    _no_split_modules = ["ResNetModel"]
    # Stage 2's layers: no warning if a stage-2 repository is loaded.
    _keys_to_ignore_on_load_unexpected = [r"^rnn\.", r"^dense\.", r"^output\.", r"^calibration_"]


class BackboneStage(GradientCheckpointingLayer):
    """A backbone stage with gradient checkpointing, which `ResNetStage` does not support.

    The second run, in the backward pass, leaves the batch norms' statistics unchanged.
    """

    def __init__(self, stage: ResNetStage) -> None:
        super().__init__()
        self.layers = stage.layers  # the name in `ResNetStage` and in checkpoints
        self._is_called = False

    def __call__(self, hidden_state: Tensor) -> Tensor:
        """Call `forward`; the second run of checkpointing bypasses this method."""
        if not (self.gradient_checkpointing and self.training):
            return super().__call__(hidden_state)
        self._is_called = True
        try:
            return super().__call__(hidden_state)
        finally:
            self._is_called = False

    def forward(self, hidden_state: Tensor) -> Tensor:
        """Compute feature maps (N, C', H', W') from feature maps (N, C, H, W)."""
        if self._is_called or not (self.gradient_checkpointing and self.training):
            return self.layers(hidden_state)
        copies = {name: buffer.clone() for name, buffer in self.layers.named_buffers()}
        return functional_call(self.layers, copies, (hidden_state,))


class MMAModel(MMAPreTrainedModel):
    """The multi-task extractor: a residual network and three linear heads on pooled features.

    Source: arXiv 2303.00180, abstract. Heads and sizes are our choice.
    """

    _has_any_classes = False

    def __init__(self, config: MMAConfig) -> None:
        super().__init__(config)
        config.validate()  # `from_pretrained` sets keywords after the config's checks
        classes = len(config.output_names)
        if classes != len(EXPRESSIONS) and not self._has_any_classes:
            raise ValueError(
                f"id2label (num_labels) names stage 1's {len(EXPRESSIONS)} expressions, "
                f"{', '.join(EXPRESSIONS)}; got {classes} names. Other classes are for "
                "MMAForImageClassification, other intensities for stage 2"
            )
        self.backbone = ResNetModel(config.resnet_config)
        stages = (BackboneStage(cast("ResNetStage", s)) for s in self.backbone.encoder.stages)
        self.backbone.encoder.stages = nn.ModuleList(stages)
        width = cast("list[int]", config.resnet_config.hidden_sizes)[-1]
        self.dropout = nn.Dropout(config.dropout)
        self.valence_arousal_head = nn.Linear(width, len(VALENCE_AROUSAL))
        self.expression_head = nn.Linear(width, classes)
        self.action_unit_head = nn.Linear(width, len(config.action_units))
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        valence_arousal_labels: Tensor | None = None,
        expression_labels: Tensor | None = None,
        action_unit_labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> MMAOutput:
        """Estimate the affect of N face crops, and the masked multi-task loss if labels are given.

        Args:
            pixel_values: (N, 3, S, S) float, RGB scaled to [-1, 1] by the processor; cast
                to the weights' dtype.
            valence_arousal_labels: (N, 2) in [-1, 1]; NaN if unlabelled.
            expression_labels: (N,) int64; -100 if unlabelled.
            action_unit_labels: (N, A) in [0, 1], as `labels.presence_target`; NaN if unlabelled.
            output_hidden_states: also return the backbone's feature maps; None: as in the
                config.
            kwargs: transformers' own keywords.

        Raises:
            ValueError: `pixel_values` is not float (N, 3, S, S) with the config's S.
            TypeError: an unknown keyword.
        """
        check_keywords(kwargs, MMAModel.forward)
        wanted = (3, self.config.image_size, self.config.image_size)
        if (
            pixel_values.ndim != 4
            or tuple(pixel_values.shape[1:]) != wanted
            or not pixel_values.is_floating_point()
        ):
            shape = ", ".join(map(str, wanted))
            raise ValueError(
                f"pixel_values must be (N, {shape}) float; "
                f"got {pixel_values.dtype} {tuple(pixel_values.shape)}"
            )
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        pixel_values = pixel_values.to(self.backbone.embedder.embedder.convolution.weight.dtype)
        features = self.backbone(
            pixel_values, output_hidden_states=output_hidden_states, return_dict=True
        )
        pooled = self.dropout(features.pooler_output.flatten(1))  # (N, width)
        output = MMAOutput(
            valence_arousal=self.valence_arousal_head(pooled).tanh(),  # (N, 2)
            expression_logits=self.expression_head(pooled),  # (N, 7)
            action_unit_logits=self.action_unit_head(pooled),  # (N, A)
            hidden_states=features.hidden_states,
        )
        labels = (valence_arousal_labels, expression_labels, action_unit_labels)
        if any(label is not None for label in labels):
            loss = self.objective(output, *labels)
            return MMAOutput(loss=loss, **output)  # the loss comes first, also in tuples
        return output

    def objective(
        self,
        output: MMAOutput,
        valence_arousal_labels: Tensor | None = None,
        expression_labels: Tensor | None = None,
        action_unit_labels: Tensor | None = None,
        copy_labels: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss of a whole batch: the weighted sum over tasks and distribution matching.

        Labels are as in `forward`; a task without labels is skipped. Co-annotation needs both
        expression and action-unit labels as tensors, even if no entry is labelled. With
        `copy_labels`, (N,) int64, rows with the same number are copies of one crop, and
        `consistency_loss` is added.

        Separate from `forward`: a batch spread over processes must be gathered first, because
        masked means and correlations of its parts do not average to those of the whole.
        """
        config = self.config
        prior = action_unit_prior(config.action_units, binary=config.binary_prior)  # (7, A)
        weights = None
        loss = output.expression_logits.new_zeros(()).float()
        if valence_arousal_labels is not None:
            loss = loss + config.valence_arousal_weight * concordance_loss(
                output.valence_arousal, valence_arousal_labels
            )
        if (
            config.co_annotation != "off"
            and expression_labels is not None
            and action_unit_labels is not None
        ):
            labels = expression_labels, action_unit_labels
            if config.co_annotation == "hard":
                expression_labels, action_unit_labels, weights = hard_co_annotation(
                    *labels, prior, prototypical_units(config.action_units)
                )
            else:
                temperature = config.co_annotation_temperature
                targets = soft_co_annotation(*labels, prior, temperature)  # (N, 7)
                loss = loss + config.co_annotation_weight * soft_expression_loss(
                    output.expression_logits, targets
                )
        if expression_labels is not None:
            loss = loss + config.expression_weight * expression_loss(
                output.expression_logits, expression_labels
            )
        if action_unit_labels is not None:
            if config.action_unit_loss == "squared_error":
                of_units = standardised_error_loss(
                    output.action_unit_logits.sigmoid(),
                    action_unit_labels,
                    self._deviations(output),
                )
            else:
                of_units = action_unit_loss(output.action_unit_logits, action_unit_labels, weights)
            loss = loss + config.action_unit_weight * of_units
            if config.action_unit_concordance_weight:
                loss = loss + config.action_unit_concordance_weight * concordance_loss(
                    output.action_unit_logits.sigmoid(), action_unit_labels
                )
        if config.distribution_matching != "off":
            loss = loss + config.distribution_matching_weight * distribution_matching_loss(
                output.expression_logits,
                output.action_unit_logits,
                prior,
                config.distribution_matching,
            )
        if copy_labels is not None:
            loss = loss + config.consistency_weight * consistency_loss(
                output.valence_arousal,
                output.expression_logits.softmax(-1),
                output.action_unit_logits.sigmoid() / self._deviations(output),
                copy_labels,
            )
        return loss

    def _deviations(self, output: MMAOutput) -> Tensor:
        """Return (A,) float32 deviations of the units' targets; ones if none are recorded."""
        deviations = self.config.action_unit_deviations or [1.0] * len(self.config.action_units)
        return output.action_unit_logits.new_tensor(deviations, dtype=torch.float32)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save weights, config and code; the config names the auto classes of both heads."""
        module = __name__.rsplit(".", 1)[-1]
        self.config.auto_map = {
            **(getattr(self.config, "auto_map", None) or {}),
            "AutoModel": f"{module}.MMAModel",
            "AutoModelForImageClassification": f"{module}.MMAForImageClassification",
        }
        super().save_pretrained(save_directory, *args, **kwargs)


class MMAForImageClassification(MMAModel):
    """The same network with the expressions as `logits`, for `pipeline("image-classification")`.

    `config.id2label` may name any number of classes (our addition). With others than the seven
    there is no prior, and the loss is the cross-entropy alone. Heads that it does not reach get
    gradients of 0.
    """

    _has_any_classes = True

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutput:
        """Return `loss`, `logits` (N, C) of the C classes, and `hidden_states` if requested.

        `pixel_values` (N, 3, S, S) float and other keywords as in `MMAModel.forward`; `labels` are
        (N,) int64 classes, -100 if unlabelled.
        """
        check_keywords(kwargs, MMAForImageClassification.forward)
        output = super().forward(
            pixel_values, output_hidden_states=output_hidden_states, return_dict=True
        )
        loss = None
        if labels is not None and self.config.num_labels == len(EXPRESSIONS):
            loss = self.objective(output, expression_labels=labels)
        elif labels is not None:
            loss = expression_loss(output.expression_logits, labels)
        if loss is not None:
            # DistributedDataParallel stops at weights without a gradient.
            loss = loss + 0.0 * (output.valence_arousal.sum() + output.action_unit_logits.sum())
        return ImageClassifierOutput(loss, output.expression_logits, output.hidden_states)


MMAModel.register_for_auto_class("AutoModel")
MMAForImageClassification.register_for_auto_class("AutoModelForImageClassification")
