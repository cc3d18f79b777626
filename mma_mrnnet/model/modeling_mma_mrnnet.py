"""Stage 2, MMA-MRNNet: from a clip of face crops, affect or features to intensities."""

import copy
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_mma_mrnnet import MMAMRNNetConfig
from .frame_by_frame import FrameByFrame
from .labels import VALENCE_AROUSAL
from .losses import concordance_loss, hide_quiet, pearson_loss, squared_error_loss
from .masked_rnn import MaskedRNN
from .modeling_mma import MMAModel, SafeWeights, check_keywords

logger = logging.getLogger(__name__)

LEAST_PROBABILITY = 0.001
"""Probabilities are clipped to [this, 1 - this] before their logits are taken."""
INTENSITY_LOSS = {"pearson": pearson_loss, "ccc": concordance_loss, "mse": squared_error_loss}


@dataclass
class IntensityOutput(ModelOutput):
    """Output of stage 2 for B clips.

    Attributes:
        loss: scalar; None without labels.
        intensities: (B, K) in the order of `config.label_names`, calibrated; in [0, 1] with
            the sigmoid output.
        logits: (B, K) before the sigmoid and the calibration.
        affect: (B, T, A) affect of the frames, or scaled features; 0 in padded frames (with
            `padded` pooling the given values).
        hidden_states: ((B, T, H),) the masked GRU outputs (not masked with `padded`
            pooling); None unless requested.
    """

    # All but `loss` and `hidden_states` are always set; `ModelOutput` requires defaults.
    loss: Tensor | None = None
    intensities: Tensor = None  # type: ignore[assignment]
    logits: Tensor = None  # type: ignore[assignment]
    affect: Tensor = None  # type: ignore[assignment]
    hidden_states: tuple[Tensor, ...] | None = None


def _is_loaded(values: Tensor) -> bool:
    """Return whether a tensor has values from a checkpoint; on disk offload it is on `meta`."""
    return values.is_meta or getattr(values, "_is_hf_initialized", False)


def _check_line(name: str, offset: Tensor, scale: Tensor, wanted: tuple[int, ...]) -> None:
    """Check shape, finiteness and positive scale of an affine map, else raise ValueError."""
    if tuple(scale.shape) != wanted or tuple(offset.shape) != wanted:
        raise ValueError(
            f"scale and {name} must be {wanted}; got {tuple(scale.shape)}, {tuple(offset.shape)}"
        )
    if not (scale.isfinite().all() and offset.isfinite().all() and (scale > 0).all()):
        raise ValueError(
            f"scale must be positive and both finite; got {scale.tolist()}, {offset.tolist()}"
        )


class MMAMRNNetPreTrainedModel(SafeWeights):
    """Initialisation and loading of stage 2."""

    config: MMAMRNNetConfig
    # Not an attribute's name, so that a stage-1 checkpoint never loads as stage 2.
    base_model_prefix = "mrnn"
    main_input_name = "pixel_values"
    input_modalities = ["video"]
    accepts_loss_kwargs = False
    supports_gradient_checkpointing = True  # in the extractor, if there is one
    _no_split_modules = ["MMAModel", "MaskedRNN"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.GRU | nn.Linear):
            if not all(map(_is_loaded, module.parameters())):
                cast("MMAMRNNetForIntensity", self).reset_calibration()  # fitted to old weights
            self._init_layer(module)
        elif isinstance(module, MMAMRNNetForIntensity):
            if not _is_loaded(module.calibration_scale):
                module.config.calibrated = False
            init.ones_(module.calibration_scale)
            init.zeros_(module.calibration_shift)
            if module.config.scales_inputs:
                init.zeros_(module.feature_mean)
                init.ones_(module.feature_scale)
        else:
            super()._init_weights(module)

    @staticmethod
    def _init_layer(module: nn.GRU | nn.Linear) -> None:
        for name, parameter in module.named_parameters(recurse=False):
            if name.startswith("bias"):
                init.zeros_(parameter)
            elif name.startswith("weight_hh"):
                init.orthogonal_(parameter)
            else:
                # With T * H bounded inputs, normals of 0.02 would start the dense layer
                # near 0.
                init.xavier_uniform_(parameter)


class MMAMRNNetForIntensity(FrameByFrame, MMAMRNNetPreTrainedModel):  # type: ignore[misc]
    """The whole network: extractor, GRU, mask, dense layer, one output per target.

    Source: arXiv 2303.00180 (GRU, mask layer, dense layer, Pearson loss, extractor fixed in
    the second stage). Layer sizes, ReLU, sigmoid and the affine calibration of each output
    (identity until fitted) are our choice.

    With `config.feature_names`, other features replace the extractor (our addition): `mma`
    is None, `affect` takes features in their own units, and the GRU receives
    (feature - mean) / scale, the identity until a scaling is set. With
    `config.affect_transform`, the GRU receives the affect's logits, scaled likewise.
    `config.channels` and `config.temporal_pooling` define networks for comparison.
    """

    calibration_scale: Tensor  # (K,)
    calibration_shift: Tensor  # (K,)
    feature_mean: Tensor  # (A,), only with `config.scales_inputs`
    feature_scale: Tensor  # (A,)

    def __init__(self, config: MMAMRNNetConfig) -> None:
        # A copy, since freezing and calibration change it and models may share one.
        super().__init__(copy.deepcopy(config))
        config = self.config
        config.validate()  # as in `MMAModel`
        targets = len(config.label_names)
        self.mma = MMAModel(config.extractor_config) if config.feature_names is None else None
        self.supports_gradient_checkpointing = self.mma is not None
        self.rnn = MaskedRNN(
            config.gru_input_size,
            config.hidden_size,
            config.num_hidden_layers,
            config.num_frames,
            config.temporal_pooling,
        )
        self.dense = nn.Linear(self.rnn.pooled_size, config.dense_size)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.dense_size, targets)
        self.register_buffer("calibration_scale", torch.ones(targets))
        self.register_buffer("calibration_shift", torch.zeros(targets))
        if config.scales_inputs:
            for name, start in (("feature_mean", 0.0), ("feature_scale", 1.0)):
                values = torch.full((config.input_size,), start, dtype=torch.float32)
                self.register_buffer(name, values)
            # 600.5 is 600 in bfloat16.
            self._keep_in_fp32_modules_strict = {"feature_mean", "feature_scale"}
        self._was_calibrated = config.calibrated
        self.post_init()
        if config.freeze_mma and self.mma is not None:
            self.freeze_mma()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self:
        """Load as transformers does, then freeze the extractor if the config says so."""
        loaded = super().from_pretrained(*args, **kwargs)
        # With `output_loading_info` transformers returns a pair, despite its annotation.
        model: Self = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.config.freeze_mma and model.mma is not None:
            model.freeze_mma()
        return loaded

    @classmethod
    def from_mma_pretrained(cls, folder_or_repo: str | os.PathLike, **config: Any) -> Self:
        """Build a stage-2 model, in eval mode, around a trained extractor.

        The extractor comes from a checkpoint of either stage; other layers are new. Keywords
        are fields of `MMAMRNNetConfig`.

        Raises:
            OSError: nothing there can be loaded.
            ValueError: weights of the extractor are missing, or the checkpoint has none.
        """
        if MMAMRNNetConfig.get_config_dict(folder_or_repo)[0].get("feature_names") is not None:
            raise ValueError(f"{folder_or_repo}: a model that reads features holds no extractor")
        mma, info = cast(
            "tuple[MMAModel, dict]",
            MMAModel.from_pretrained(folder_or_repo, output_loading_info=True),
        )
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ValueError(
                f"{folder_or_repo}: {len(missing)} weights are missing, for example {missing[0]}"
            )
        model = cls(MMAMRNNetConfig(mma_config=mma.config, **config))
        model._extractor().load_state_dict(mma.state_dict())
        return model.eval()

    def freeze_mma(self) -> None:
        """Fix the extractor: no gradients, eval mode. Raises ValueError if there is none."""
        extractor = self._extractor()
        self.config.freeze_mma = True
        extractor.requires_grad_(False).eval()

    def unfreeze_mma(self) -> None:
        """Train the extractor too; needs `pixel_values`. Raises ValueError if there is none."""
        extractor = self._extractor()
        self.config.freeze_mma = False
        extractor.requires_grad_(True).train(self.training)

    def _extractor(self) -> MMAModel:
        if self.mma is None:
            raise ValueError(
                f"this model reads {self.config.input_size} features a frame "
                "(config.feature_names) and holds no extractor of its own: "
                "give them as affect (B, T, F), not pixel_values"
            )
        return self.mma

    def train(self, mode: bool = True) -> Self:
        """Set training mode; a frozen extractor stays in eval mode."""
        super().train(mode)
        self._restore_calibration()
        if self.config.freeze_mma and self.mma is not None:
            self.mma.eval()
        return self

    def set_calibration(self, scale: Tensor, shift: Tensor) -> None:
        """Store an affine calibration of the outputs with the weights.

        `scale` (K,) is positive, so that clips keep their order; `shift` is (K,). Raises
        ValueError otherwise, and for values that are not finite.
        """
        _check_line("shift", shift, scale, tuple(self.calibration_scale.shape))
        self.calibration_scale.copy_(scale)
        self.calibration_shift.copy_(shift)
        self.config.calibrated = True

    def reset_calibration(self) -> None:
        """Set the calibration to the identity, as training requires."""
        self.calibration_scale.fill_(1.0)
        self.calibration_shift.fill_(0.0)
        self.config.calibrated = False

    def _forget_calibration(self) -> None:
        """Reset a calibration whose weights are about to change, and warn once."""
        if not self.config.calibrated:
            return
        self.reset_calibration()
        words = (
            "training goes on from calibrated weights: their calibration was reset; fit it again"
        )
        if self.config.simulated_labels:
            words += (
                ". config.simulated_labels stays True: set it to False if people gave the labels"
            )
        logger.warning(words)

    def _restore_calibration(self) -> None:
        """Set `config.calibrated` if a new model got a fitted calibration from a state dict."""
        scale = self.calibration_scale
        if self._was_calibrated and not self.config.calibrated and not scale.is_meta:
            is_identity = bool((scale == 1).all() and (self.calibration_shift == 0).all())
            self.config.calibrated = not is_identity

    def set_feature_scaling(self, mean: Tensor, scale: Tensor) -> None:
        """Store with the weights the map (input - `mean`) / `scale`, (A,) each.

        Inputs are the features, or the affect after `transform_inputs`. Raises ValueError for
        a model without a scaling, a wrong shape, a value that is not finite, or a scale <= 0.
        """
        if not self.config.scales_inputs:
            raise ValueError(
                "only a model that reads features (config.feature_names) or logits of affect "
                "(config.affect_transform) has a scaling of them"
            )
        _check_line("mean", mean, scale, tuple(self.feature_mean.shape))
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(scale)

    def transform_inputs(self, affect: Tensor) -> Tensor:
        """Map affect (..., A) to its logits with `config.affect_transform`; else return it.

        Probabilities are clipped to [0.001, 0.999]; valence and arousal stay as they are.
        """
        if self.config.affect_transform == "none":
            return affect
        values, probabilities = affect.tensor_split([len(VALENCE_AROUSAL)], -1)
        clipped = probabilities.clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return torch.cat([values, clipped.logit()], -1)

    def extract_affect(
        self, pixel_values: Tensor, frame_mask: Tensor | None = None, chunk_size: int = 64
    ) -> Tensor:
        """Compute the affect (B, T, A) float32 of the real frames of B clips; 0 in padded frames.

        `pixel_values` is (B, T, 3, S, S) float, `frame_mask` (B, T) bool (None: all are real).
        `chunk_size` frames pass through the extractor at once.
        """
        extractor = self._extractor()
        if frame_mask is None:
            frame_mask = torch.ones(
                pixel_values.shape[:2], dtype=torch.bool, device=pixel_values.device
            )
        if torch.compiler.is_compiling() and not extractor.training:
            # One graph has fixed shapes: padded frames, made 0, are computed too.
            shown = frame_mask[..., None, None, None]
            frames = torch.where(shown, pixel_values, 0.0).flatten(0, 1)
            every = extractor(frames, return_dict=True).affect.unflatten(0, frame_mask.shape)
            return torch.where(frame_mask.unsqueeze(-1), every, 0.0)
        frames = pixel_values[frame_mask]  # (N, 3, S, S), N real frames
        affect = frames.new_zeros(*frame_mask.shape, self.config.input_size, dtype=torch.float32)
        if len(frames) == 0:
            return affect
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_mma):
            per_frame = torch.cat(
                [extractor(chunk, return_dict=True).affect for chunk in frames.split(chunk_size)]
            )  # (N, A)
        return affect.masked_scatter(frame_mask.unsqueeze(-1), per_frame)

    def _check_extractor_can_learn(self) -> None:
        """Raise ValueError if weights that are to learn lie in a fixed extractor, as by LoRA."""
        weights = self._extractor().named_parameters()
        learning = [name for name, each in weights if each.requires_grad]
        if self.config.freeze_mma and learning:
            raise ValueError(
                f"the extractor is fixed (config.freeze_mma), so mma.{learning[0]} and the like "
                "would never learn: call model.unfreeze_mma() before adding adapters (LoRA), or "
                "leave mma out of target_modules"
            )

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        affect: Tensor | None = None,
        frame_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> IntensityOutput:
        """Estimate the intensities of B clips from face crops, affect or features.

        Exactly one of `pixel_values` and `affect` must be given.

        Args:
            pixel_values: (B, t, 3, S, S) float, RGB scaled to [-1, 1], t <= T; not for a
                model that reads features.
            affect: (B, t, A) float in the order of `config.input_names`: affect, or
                features in their own units.
            frame_mask: (B, t) bool, True for real frames, which must come first in each
                row; None means all are real.
            labels: (B, K) float in [0, 1]; NaN if unlabelled.
            output_hidden_states: also return the masked GRU outputs; None: as in the
                config.
            kwargs: transformers' own keywords.

        Raises:
            ValueError: both or neither input, a wrong shape, more than T frames, a mask
                with holes, or pixels for a model that reads features.
            TypeError: an unknown keyword.
        """
        check_keywords(kwargs, MMAMRNNetForIntensity.forward)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if labels is not None and self.training and torch.is_grad_enabled():
            self._forget_calibration()
        affect, states, frame_mask = self._encode(pixel_values, affect, frame_mask)
        logits = self._logits(self.dense(self.rnn.pooled(states, frame_mask)))
        output = IntensityOutput(
            intensities=self._intensities(logits),
            logits=logits,
            affect=affect,
            hidden_states=(states,) if output_hidden_states else None,
        )
        if labels is not None:
            loss = self.objective(output, labels)
            return IntensityOutput(loss=loss, **output)  # the loss comes first, also in tuples
        return output

    def _encode(
        self, pixel_values: Tensor | None, affect: Tensor | None, frame_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Check the inputs; return affect (B, t, A), GRU outputs (B, T, H) and mask (B, t)."""
        if pixel_values is not None and affect is None:
            frame_mask = self._check_inputs(pixel_values, frame_mask, are_pixels=True)
            if self.training and torch.is_grad_enabled():
                self._check_extractor_can_learn()
            affect = self.extract_affect(pixel_values, frame_mask)
        elif affect is not None and pixel_values is None:
            frame_mask = self._check_inputs(affect, frame_mask, are_pixels=False)
        else:
            raise ValueError(
                "give either pixel_values (B, T, 3, S, S) or affect (B, T, A), "
                "not both and not neither"
            )
        affect, inputs = self._prepare_affect(affect, frame_mask)  # (B, t, A), (B, t, C)
        return affect, self.rnn(inputs, frame_mask), frame_mask

    def _logits(self, dense: Tensor) -> Tensor:
        # No autocast: half precision is as coarse as the differences between clips.
        with torch.autocast(dense.device.type, enabled=False):
            return self.output(self.dropout(dense.relu()).to(self.calibration_scale.dtype))

    def _intensities(self, logits: Tensor) -> Tensor:
        estimates = self._calibrate(logits)
        is_bounded = self.config.output_activation == "sigmoid"
        return estimates.clamp(0.0, 1.0) if is_bounded else estimates

    def _prepare_affect(self, affect: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output's affect (B, t, A) and what the GRU reads of it, (B, t, C).

        Features are scaled in both. Padding is 0 (kept if `padded`).
        """
        real = frame_mask.unsqueeze(-1)  # (B, t, 1)
        if self.config.temporal_pooling != "padded":
            affect = torch.where(real, affect, 0.0)
        inputs = affect
        if self.config.scales_inputs:
            # In float32: half precision cannot represent 600.5.
            raw = self.transform_inputs(affect.float())
            scaled = (raw - self.feature_mean.float()) / self.feature_scale.float()
            inputs = torch.where(real, scaled, affect.float())  # padding: 0 is the mean
            if self.config.feature_names is not None:
                affect = inputs
        columns = self.config.channel_columns
        if len(columns) < inputs.shape[-1]:
            inputs = inputs[..., columns]
        # The dtype of the weights; a quantised layer does not expose it.
        dtype = self.calibration_scale.dtype
        return affect.to(dtype), inputs.to(dtype)

    def objective(self, output: IntensityOutput, labels: Tensor) -> Tensor:
        """Compute the loss of a whole batch, see `config`; labels (B, K) may be NaN.

        Separate from `forward`: a batch spread over processes must be gathered first, because
        correlations of its parts do not average to that of the whole.
        """
        loss, weight = INTENSITY_LOSS[self.config.intensity_loss], self.config.quiet_weight
        # Not clipped to [0, 1]: a clipped estimate has no gradient.
        estimates = self._calibrate(output.logits)
        over_all = loss(estimates, labels)
        if weight is None:
            return over_all
        return loss(estimates, hide_quiet(labels)) + weight * over_all

    def _calibrate(self, logits: Tensor) -> Tensor:
        """Activate and calibrate logits (B, K), without clipping."""
        activated = logits.sigmoid() if self.config.output_activation == "sigmoid" else logits
        return self.calibration_scale * activated + self.calibration_shift

    def _check_inputs(
        self, values: Tensor, frame_mask: Tensor | None, *, are_pixels: bool
    ) -> Tensor:
        """Check all shapes and return the mask (B, t); all True if None was given."""
        wanted: tuple[int, ...] = (self.config.input_size,)
        if are_pixels:
            side = self._extractor().config.image_size
            wanted = (3, side, side)
        if (
            values.ndim != 2 + len(wanted)
            or tuple(values.shape[2:]) != wanted
            or not values.is_floating_point()
        ):
            name = "pixel_values" if are_pixels else "affect"
            shape = ", ".join(map(str, wanted))
            raise ValueError(
                f"{name} must be (B, T, {shape}) float; got {values.dtype} {tuple(values.shape)}"
            )
        clips, frames = values.shape[:2]
        if frames == 0:
            raise ValueError("at least one frame, which may be padding, is needed; got none")
        if frames > self.config.num_frames:
            raise ValueError(
                f"a clip may have at most {self.config.num_frames} frames here "
                f"(config.num_frames); got {frames}. The processor makes longer clips fit."
            )
        if frame_mask is None:
            return torch.ones(clips, frames, dtype=torch.bool, device=values.device)
        if frame_mask.shape != (clips, frames) or frame_mask.dtype != torch.bool:
            raise ValueError(
                f"frame_mask must be bool ({clips}, {frames}); "
                f"got {frame_mask.dtype} {tuple(frame_mask.shape)}"
            )
        # Reading values breaks the graph, so a compiled model skips this check.
        if not torch.compiler.is_compiling():
            starts_again = frame_mask[:, 1:] & ~frame_mask[:, :-1]  # (B, t - 1)
            if bool(starts_again.any()):
                raise ValueError(
                    "frame_mask has holes: real frames must come first in each row, padding behind"
                )
        return frame_mask

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save weights, config and code; the config names the auto classes of both heads.

        Writes the map itself, since a second `register_for_auto_class` overwrites the first.
        Removes a pipeline from the config if its file is not in the folder.
        """
        module = __name__.rsplit(".", 1)[-1]
        self.config.auto_map = {
            **(getattr(self.config, "auto_map", None) or {}),
            "AutoModel": f"{module}.MMAMRNNetForIntensity",
            "AutoModelForVideoClassification": f"{module}.MMAMRNNetForVideoClassification",
        }
        pipelines = (getattr(self.config, "custom_pipelines", None) or {}).values()
        files = [f"{pipeline['impl'].split('.')[0]}.py" for pipeline in pipelines]
        # `somebody/repository--file` needs no file here.
        if not all("--" in file or Path(save_directory, file).is_file() for file in files):
            del self.config.custom_pipelines
        super().save_pretrained(save_directory, *args, **kwargs)


class MMAMRNNetForVideoClassification(MMAMRNNetForIntensity):
    """The same network with the intensities as `logits`, for `pipeline("video-classification")`.

    That pipeline shows the `logits` of a regression unchanged. `objective` and
    `frame_contributions` still use the logits of `MMAMRNNetForIntensity`.
    """

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        affect: Tensor | None = None,
        frame_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> IntensityOutput:
        """Run `MMAMRNNetForIntensity.forward`; return the intensities as `logits`.

        Repeats the signature: transformers' `Trainer` drops columns that are not in it.
        """
        kwargs["return_dict"] = True
        output = super().forward(
            pixel_values, affect, frame_mask, labels, output_hidden_states, **kwargs
        )
        output.logits = output.intensities
        return output


MMAMRNNetForIntensity.register_for_auto_class("AutoModel")
MMAMRNNetForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
