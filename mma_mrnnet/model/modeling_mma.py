"""Stage 1, MMA: a face crop in, valence-arousal, seven expressions and the action units out."""

import os
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel, ResNetModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_mma_mrnnet import MMAConfig
from .labels import EXPRESSIONS, VALENCE_AROUSAL, pack_affect
from .losses import (
    action_unit_loss,
    concordance_loss,
    distribution_matching_loss,
    expression_loss,
    hard_co_annotation,
    soft_co_annotation,
    soft_expression_loss,
)
from .priors import action_unit_prior, prototypical_units


@dataclass
class MMAOutput(ModelOutput):
    """What stage 1 says of N face crops.

    Attributes:
        loss: scalar, the weighted sum of the masked objectives; None without labels.
        valence_arousal: (N, 2) in [-1, 1].
        expression_logits: (N, 7) before the softmax, in the order of `labels.EXPRESSIONS`.
        action_unit_logits: (N, A) before the sigmoid, in the order of `config.action_units`.
        hidden_states: the backbone's feature maps, where asked for.
    """

    loss: Tensor | None = None
    valence_arousal: Tensor | None = None
    expression_logits: Tensor | None = None
    action_unit_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None

    @property
    def affect(self) -> Tensor:
        """(N, 2 + 7 + A) float32: values, expression probabilities, unit probabilities; see `labels.affect_names`."""
        return pack_affect(self.valence_arousal, self.expression_logits, self.action_unit_logits)


class MMAPreTrainedModel(PreTrainedModel):
    """Initialisation and loading shared by stage 1 and, through it, stage 2."""

    config: MMAConfig
    base_model_prefix = (
        "mma"  # the attribute's name in stage 2: its repository then gives up its extractor alone
    )
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    accepts_loss_kwargs = False
    supports_gradient_checkpointing = True
    _no_split_modules = (
        "ResNetModel",
    )  # a device map that cuts a residual block in two could not run
    # Stage 2's own layers: loading the extractor out of a stage-2 repository is no accident worth a warning.
    _keys_to_ignore_on_load_unexpected = (r"^rnn\.", r"^dense\.", r"^output\.", r"^calibration_")


class BackboneStage(GradientCheckpointingLayer):
    """A stage of the backbone that can be checkpointed, as transformers' own `ResNetStage` cannot.

    Checkpointing computes a stage a second time in the backward pass. The batch norms' running statistics then stay as
    the first time left them; without that they would move twice a step, and the trained model would be another one.
    """

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.layers = stage.layers  # the name in `ResNetStage`, hence in checkpoints
        self._is_called = False

    def __call__(self, hidden_state: Tensor) -> Tensor:
        """As every module; only the first computation comes this way, the second goes straight to `forward`."""
        if not (self.gradient_checkpointing and self.training):
            return super().__call__(hidden_state)
        self._is_called = True
        try:
            return super().__call__(hidden_state)
        finally:
            self._is_called = False

    def forward(self, hidden_state: Tensor) -> Tensor:
        """Feature maps (N, C', H', W') of feature maps (N, C, H, W)."""
        if self._is_called or not (self.gradient_checkpointing and self.training):
            return self.layers(hidden_state)
        copies = {name: buffer.clone() for name, buffer in self.layers.named_buffers()}
        return functional_call(self.layers, copies, (hidden_state,))


class MMAModel(MMAPreTrainedModel):
    """The multi-task extractor: a residual network and three linear heads on its pooled features.

    Source: arXiv 2303.00180, abstract (three tasks on static frames); heads and sizes are our choice.
    """

    def __init__(self, config: MMAConfig) -> None:
        super().__init__(config)
        config.validate()  # what `from_pretrained` is given beside a checkpoint is set behind the config's own checks
        self.backbone = ResNetModel(config.backbone_config)
        self.backbone.encoder.stages = nn.ModuleList(
            map(BackboneStage, self.backbone.encoder.stages)
        )
        width = config.backbone_config.hidden_sizes[-1]
        self.dropout = nn.Dropout(config.dropout)
        self.valence_arousal_head = nn.Linear(width, len(VALENCE_AROUSAL))
        self.expression_head = nn.Linear(width, len(EXPRESSIONS))
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
        """Affect of N face crops, and the masked multi-task loss where labels are given.

        Args:
            pixel_values: (N, 3, S, S) float, RGB scaled to [-1, 1] by the processor; cast to the weights' type.
            valence_arousal_labels: (N, 2) in [-1, 1]; NaN where unlabelled.
            expression_labels: (N,) int64; -100 where unlabelled.
            action_unit_labels: (N, A) in [0, 1], probabilities of presence; NaN where unlabelled.
            output_hidden_states: also return the backbone's feature maps; None means what the config says.
            kwargs: transformers' hooks; nothing of ours.

        Returns:
            An `MMAOutput`.

        Raises:
            ValueError: `pixel_values` is not float (N, 3, S, S) with the config's S.
        """
        wanted = (3, self.config.image_size, self.config.image_size)
        if (
            pixel_values.ndim != 4
            or tuple(pixel_values.shape[1:]) != wanted
            or not pixel_values.is_floating_point()
        ):
            shape = ", ".join(map(str, wanted))
            raise ValueError(
                f"pixel_values must be (N, {shape}) float; got {pixel_values.dtype} {tuple(pixel_values.shape)}"
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
            return MMAOutput(
                loss=self.objective(output, *labels), **output
            )  # the loss first, in tuples too
        return output

    def objective(
        self,
        output: MMAOutput,
        valence_arousal_labels: Tensor | None = None,
        expression_labels: Tensor | None = None,
        action_unit_labels: Tensor | None = None,
    ) -> Tensor:
        """The loss of a whole batch: the weighted sum of the tasks that have labels, and of distribution matching.

        Co-annotation, where the config asks for it, needs both expression and action-unit labels, be they all absent.

        Separate from `forward`, because a batch spread over processes has to be put together first: masked means
        and correlations of its shares do not average to those of the whole.

        Args:
            output: of the batch's N crops; its first three fields are read.
            valence_arousal_labels: as in `forward`, as are the others.
            expression_labels: (N,).
            action_unit_labels: (N, A).

        Returns:
            Scalar.
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
                targets = soft_co_annotation(
                    *labels, prior, config.co_annotation_temperature
                )  # (N, 7)
                loss = loss + config.co_annotation_weight * soft_expression_loss(
                    output.expression_logits, targets
                )
        if expression_labels is not None:
            loss = loss + config.expression_weight * expression_loss(
                output.expression_logits, expression_labels
            )
        if action_unit_labels is not None:
            loss = loss + config.action_unit_weight * action_unit_loss(
                output.action_unit_logits, action_unit_labels, weights
            )
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
        return loss

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save weights, config and code; both auto classes are named, whichever of the two this is.

        A second `register_for_auto_class` would overwrite the first, hence by hand here.
        """
        module = __name__.rsplit(".", 1)[-1]
        self.config.auto_map = {
            **(getattr(self.config, "auto_map", None) or {}),
            "AutoModel": f"{module}.MMAModel",
            "AutoModelForImageClassification": f"{module}.MMAForImageClassification",
        }
        super().save_pretrained(save_directory, **kwargs)


class MMAForImageClassification(MMAModel):
    """The same network with the expressions as its `logits`, for `pipeline("image-classification")` on a face crop."""

    @can_return_tuple
    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        """Expressions of N face crops.

        Args:
            pixel_values: (N, 3, S, S) float, as `MMAModel.forward` takes them.
            labels: (N,) int64 expressions, -100 where unlabelled: `MMAModel.forward`'s `expression_labels`.
            kwargs: the other arguments of `MMAModel.forward`.

        Returns:
            `loss` and `logits` (N, 7), and `hidden_states` where asked for.
        """
        output = super().forward(
            pixel_values, expression_labels=labels, **{**kwargs, "return_dict": True}
        )
        return ImageClassifierOutput(output.loss, output.expression_logits, output.hidden_states)


MMAModel.register_for_auto_class("AutoModel")
MMAForImageClassification.register_for_auto_class("AutoModelForImageClassification")
