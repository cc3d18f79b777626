"""Stage 2, MMA-MRNNet: a clip of face crops (or its affect, or other features) in, one intensity a target out."""

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils.generic import ModelOutput, can_return_tuple

from .configuration_mma_mrnnet import MMAMRNNetConfig
from .frame_by_frame import FrameByFrame
from .losses import concordance_loss, pearson_loss, squared_error_loss
from .masked_rnn import MaskedRNN
from .modeling_mma import MMAModel

INTENSITY_LOSS = {"pearson": pearson_loss, "ccc": concordance_loss, "mse": squared_error_loss}


@dataclass
class IntensityOutput(ModelOutput):
    """What stage 2 says of B clips.

    Attributes:
        loss: scalar; None without labels.
        intensities: (B, K), calibrated; in [0, 1] with the sigmoid output. The order is `config.label_names`.
        logits: (B, K) before the sigmoid and the calibration.
        affect: (B, T, A) the frames' affect, all of it, or scaled features; 0 in padded frames (with `padded` pooling
            what was given).
        hidden_states: ((B, T, H),) the GRU's outputs after the mask (with `padded` pooling before it), where asked for.
    """

    loss: Tensor | None = None
    intensities: Tensor | None = None
    logits: Tensor | None = None
    affect: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


class MMAMRNNetPreTrainedModel(PreTrainedModel):
    """Initialisation and loading of stage 2."""

    config: MMAMRNNetConfig
    base_model_prefix = (
        "mrnn"  # not an attribute on purpose: a stage-1 checkpoint must not be poured in here
    )
    main_input_name = "pixel_values"
    input_modalities = ("video",)
    accepts_loss_kwargs = False
    supports_gradient_checkpointing = True  # of the extractor's stages, where it learns
    _no_split_modules = ("MMAModel", "MaskedRNN")
    _keep_in_fp32_modules_strict = ("feature_mean", "feature_scale")  # 600.5 mm is 600 in bfloat16

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.GRU | nn.Linear):
            if not all(
                getattr(weight, "_is_hf_initialized", False) for weight in module.parameters()
            ):
                self.reset_calibration()  # fitted for weights that are gone
            self._init_layer(module)
        elif isinstance(module, MMAMRNNetForIntensity):
            if not getattr(module.calibration_scale, "_is_hf_initialized", False):
                module.config.calibrated = False
            init.ones_(module.calibration_scale)
            init.zeros_(module.calibration_shift)
            if module.config.feature_names is not None:
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
                # Plain 0.02 normals would start the dense layer, fed by T * H bounded inputs, almost at 0 output.
                init.xavier_uniform_(parameter)


class MMAMRNNetForIntensity(FrameByFrame, MMAMRNNetPreTrainedModel):
    """The whole network: extractor, GRU, mask, dense layer, and one output for each target.

    Source: arXiv 2303.00180 (GRU, mask layer, dense layer, Pearson loss, extractor fixed in the second stage). Units
    of each layer, ReLU and sigmoid are our choice, as is the affine calibration of each output, the identity until
    one is fitted.

    With `config.feature_names` other features stand in the extractor's place (our addition): `mma` is None, `affect`
    takes the features on the scale of their source, and the GRU receives (feature - mean) / scale, the identity until
    a scaling is set. `config.channels` and `config.temporal_pooling` make networks to compare the method with.
    """

    def __init__(self, config: MMAMRNNetConfig) -> None:
        # A copy: freezing and calibration are written into it, and another model may hold the same one.
        super().__init__(copy.deepcopy(config))
        config = self.config
        config.validate()  # as in `MMAModel`
        self.mma = MMAModel(config.mma_config) if config.feature_names is None else None
        self.rnn = MaskedRNN(
            config.gru_input_size,
            config.hidden_size,
            config.num_hidden_layers,
            config.num_frames,
            config.temporal_pooling,
        )
        self.dense = nn.Linear(self.rnn.pooled_size, config.dense_size)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.dense_size, config.num_labels)
        self.register_buffer("calibration_scale", torch.ones(config.num_labels))
        self.register_buffer("calibration_shift", torch.zeros(config.num_labels))
        if config.feature_names is not None:
            self.register_buffer("feature_mean", torch.zeros(config.input_size))
            self.register_buffer("feature_scale", torch.ones(config.input_size))
        self.post_init()
        if config.freeze_mma and self.mma is not None:
            self.freeze_mma()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Self | tuple[Self, dict]:
        """As transformers' own, whose new parameters all learn: those of a frozen extractor are fixed again."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.config.freeze_mma and model.mma is not None:
            model.freeze_mma()
        return loaded

    @classmethod
    def from_mma_pretrained(cls, folder_or_repo: str | os.PathLike, **config: Any) -> Self:
        """A new stage-2 model around a trained extractor.

        Args:
            folder_or_repo: a stage-1 checkpoint (or a stage-2 one, whose extractor is taken).
            config: fields of `MMAMRNNetConfig` that differ from its defaults.

        Returns:
            A model whose extractor is loaded and whose other layers are new, in eval mode.

        Raises:
            OSError: nothing that can be loaded is there.
            ValueError: weights of the extractor are missing there, or a model that reads features has none.
        """
        if MMAMRNNetConfig.get_config_dict(folder_or_repo)[0].get("feature_names") is not None:
            raise ValueError(f"{folder_or_repo}: a model that reads features holds no extractor")
        mma, info = MMAModel.from_pretrained(folder_or_repo, output_loading_info=True)
        if info["missing_keys"]:
            missing = sorted(info["missing_keys"])
            raise ValueError(
                f"{folder_or_repo}: {len(missing)} weights are missing, for example {missing[0]}"
            )
        model = cls(MMAMRNNetConfig(mma_config=mma.config, **config))
        model.mma.load_state_dict(mma.state_dict())
        return model.eval()

    def freeze_mma(self) -> None:
        """Fix the extractor: no gradients, and eval mode for good, so its batch norms keep their statistics.

        Raises:
            ValueError: a model that reads features holds no extractor; as in the two methods below.
        """
        extractor = self._extractor()
        self.config.freeze_mma = True
        extractor.requires_grad_(False).eval()

    def unfreeze_mma(self) -> None:
        """Let the extractor learn (it needs `pixel_values`; cached `affect` carries no gradient to it)."""
        extractor = self._extractor()
        self.config.freeze_mma = False
        extractor.requires_grad_(True).train(self.training)

    def _extractor(self) -> MMAModel:
        if self.mma is None:
            raise ValueError(
                f"this model reads {self.config.input_size} features a frame (config.feature_names) and holds no "
                "extractor of its own: give them as affect (B, T, F); there are no pixel_values to look at"
            )
        return self.mma

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode, all but a frozen extractor."""
        super().train(mode)
        if self.config.freeze_mma and self.mma is not None:
            self.mma.eval()
        return self

    def set_calibration(self, scale: Tensor, shift: Tensor) -> None:
        """Keep an affine calibration of the outputs with the weights.

        Args:
            scale: (K,) positive, so that the order of clips within a target never changes.
            shift: (K,).

        Raises:
            ValueError: a wrong shape, a value that is not finite, or a scale that is not positive.
        """
        wanted = self.calibration_scale.shape
        if scale.shape != wanted or shift.shape != wanted:
            raise ValueError(
                f"scale and shift must be {tuple(wanted)}; got {tuple(scale.shape)}, {tuple(shift.shape)}"
            )
        if not (scale.isfinite().all() and shift.isfinite().all() and (scale > 0).all()):
            raise ValueError(
                f"scale must be positive and both finite; got {scale.tolist()}, {shift.tolist()}"
            )
        self.calibration_scale.copy_(scale)
        self.calibration_shift.copy_(shift)
        self.config.calibrated = True

    def reset_calibration(self) -> None:
        """Back to the identity, as training needs it."""
        self.calibration_scale.fill_(1.0)
        self.calibration_shift.fill_(0.0)
        self.config.calibrated = False

    def set_feature_scaling(self, mean: Tensor, scale: Tensor) -> None:
        """Keep with the weights what brings each feature to about mean 0 and deviation 1.

        Args:
            mean: (F,), subtracted first.
            scale: (F,) positive, divided by.

        Raises:
            ValueError: a model with an extractor, a wrong shape, a value that is not finite, or a scale that is not
                positive.
        """
        if self.config.feature_names is None:
            raise ValueError(
                "only a model that reads features (config.feature_names) has a scaling of them"
            )
        wanted = self.feature_mean.shape
        if mean.shape != wanted or scale.shape != wanted:
            raise ValueError(
                f"mean and scale must be {tuple(wanted)}; got {tuple(mean.shape)}, {tuple(scale.shape)}"
            )
        if not (mean.isfinite().all() and scale.isfinite().all() and (scale > 0).all()):
            raise ValueError(
                f"scale must be positive and both finite; got {mean.tolist()}, {scale.tolist()}"
            )
        self.feature_mean.copy_(mean)
        self.feature_scale.copy_(scale)

    def extract_affect(
        self, pixel_values: Tensor, frame_mask: Tensor | None = None, chunk_size: int = 64
    ) -> Tensor:
        """Affect of the real frames of B clips, put back in place.

        Args:
            pixel_values: (B, T, 3, S, S) float; padded frames are never looked at.
            frame_mask: (B, T) bool; None means every frame is real.
            chunk_size: frames that go through the extractor at once.

        Returns:
            (B, T, A) float32; 0 in padded frames.
        """
        extractor = self._extractor()
        if frame_mask is None:
            frame_mask = torch.ones(
                pixel_values.shape[:2], dtype=torch.bool, device=pixel_values.device
            )
        frames = pixel_values[frame_mask]  # (N, 3, S, S), N real frames
        affect = frames.new_zeros(*frame_mask.shape, self.config.input_size, dtype=torch.float32)
        if len(frames) == 0:
            return affect
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_mma):
            per_frame = torch.cat(
                [extractor(chunk, return_dict=True).affect for chunk in frames.split(chunk_size)]
            )  # (N, A)
        return affect.masked_scatter(frame_mask.unsqueeze(-1), per_frame)

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
        """Intensities of B clips, from face crops or from what is known of their frames.

        Args:
            pixel_values: (B, t, 3, S, S) float, RGB scaled to [-1, 1], t <= T; or None.
            affect: (B, t, A) float in the order of `config.input_names`: affect, or features as their source wrote
                them; or None. Exactly one of the two, and never pixels for a model that reads features.
            frame_mask: (B, t) bool, True for real frames, which come first in each row; None means all are real.
            labels: (B, K) float in [0, 1]; NaN where unlabelled.
            output_hidden_states: also return the masked GRU outputs; None means what the config says.
            kwargs: transformers' hooks; nothing of ours.

        Returns:
            An `IntensityOutput`.

        Raises:
            ValueError: both or neither input, a wrong shape, more than T frames, a mask with holes, pixels for a
                model that reads features.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        affect, states, frame_mask = self._encoded(pixel_values, affect, frame_mask)
        logits = self._logits(self.dense(self.rnn.pooled(states, frame_mask)))
        output = IntensityOutput(
            intensities=self._intensities(logits),
            logits=logits,
            affect=affect,
            hidden_states=(states,) if output_hidden_states else None,
        )
        if labels is not None:
            return IntensityOutput(
                loss=self.objective(output, labels), **output
            )  # the loss first, in tuples too
        return output

    def _encoded(
        self, pixel_values: Tensor | None, affect: Tensor | None, frame_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`forward`'s checks; the affect (B, t, A), the masked GRU outputs (B, T, H) and the mask (B, t)."""
        if (pixel_values is None) == (affect is None):
            raise ValueError(
                "give either pixel_values (B, T, 3, S, S) or affect (B, T, A), not both and not neither"
            )
        frame_mask = self._checked_mask(
            pixel_values if affect is None else affect, frame_mask, affect is None
        )
        if affect is None:
            affect = self.extract_affect(pixel_values, frame_mask)
        affect = self._prepared(affect, frame_mask)  # (B, t, A)
        return affect, self.rnn(self._chosen(affect), frame_mask), frame_mask

    def _logits(self, dense: Tensor) -> Tensor:
        """(B, K) outputs before the sigmoid, of the (B, D) dense layer's before its ReLU."""
        # In full precision also where autocast computes in half: half's steps are as large as what clips differ by.
        with torch.autocast(dense.device.type, enabled=False):
            return self.output(self.dropout(dense.relu()).to(self.calibration_scale.dtype))

    def _intensities(self, logits: Tensor) -> Tensor:
        """(B, K) activated and calibrated outputs, in [0, 1] with the sigmoid."""
        estimates = self._estimates(logits)
        return (
            estimates.clamp(0.0, 1.0) if self.config.output_activation == "sigmoid" else estimates
        )

    def _prepared(self, affect: Tensor, frame_mask: Tensor) -> Tensor:
        """(B, t, A) in the GRU's own type, features scaled; 0 in padded frames (as given if none is masked)."""
        real = frame_mask.unsqueeze(-1)  # (B, t, 1)
        if self.config.temporal_pooling != "padded":
            affect = torch.where(real, affect, 0.0)
        if self.config.feature_names is not None:
            # In float32: a position of 600 mm that varies by 1 would be lost in half precision.
            scaled = (affect.float() - self.feature_mean.float()) / self.feature_scale.float()
            affect = torch.where(
                real, scaled, affect.float()
            )  # padding is on the GRU's scale: 0 is the mean
        return affect.to(
            self.calibration_scale.dtype
        )  # the weights', which a quantised layer no longer tells

    def _chosen(self, affect: Tensor) -> Tensor:
        """(B, t, C) of (B, t, A): the columns that the GRU reads."""
        columns = self.config.channel_columns
        return affect if len(columns) == affect.shape[-1] else affect[..., columns]

    def objective(self, output: IntensityOutput, labels: Tensor) -> Tensor:
        """The loss of a whole batch, `config.intensity_loss`.

        Separate from `forward`, because a batch spread over processes has to be put together first: correlations of
        its shares do not average to that of the whole.

        Args:
            output: of the batch's B clips; its `logits` are read.
            labels: (B, K); NaN where unlabelled.

        Returns:
            Scalar.
        """
        # The estimates before they are clipped to [0, 1]: a clipped one would have no gradient.
        return INTENSITY_LOSS[self.config.intensity_loss](self._estimates(output.logits), labels)

    def _estimates(self, logits: Tensor) -> Tensor:
        """(B, K) activated and calibrated outputs, not yet clipped."""
        activated = logits.sigmoid() if self.config.output_activation == "sigmoid" else logits
        return self.calibration_scale * activated + self.calibration_shift

    def _checked_mask(self, values: Tensor, frame_mask: Tensor | None, pixels: bool) -> Tensor:
        """The mask, all True where none was given, after every check of the shapes."""
        if pixels:
            side = self._extractor().config.image_size
            wanted = (3, side, side)
        else:
            wanted = (self.config.input_size,)
        if (
            values.ndim != 2 + len(wanted)
            or tuple(values.shape[2:]) != wanted
            or not values.is_floating_point()
        ):
            name = "pixel_values" if pixels else "affect"
            shape = ", ".join(map(str, wanted))
            raise ValueError(
                f"{name} must be (B, T, {shape}) float; got {values.dtype} {tuple(values.shape)}"
            )
        clips, frames = values.shape[:2]
        if frames == 0:
            raise ValueError("at least one frame, which may be padding, is needed; got none")
        if frames > self.config.num_frames:
            raise ValueError(
                f"a clip may have at most {self.config.num_frames} frames here (config.num_frames); got {frames}. "
                "The processor makes longer clips fit."
            )
        if frame_mask is None:
            return torch.ones(clips, frames, dtype=torch.bool, device=values.device)
        if frame_mask.shape != (clips, frames) or frame_mask.dtype != torch.bool:
            raise ValueError(
                f"frame_mask must be bool ({clips}, {frames}); got {frame_mask.dtype} {tuple(frame_mask.shape)}"
            )
        # Reading values back is a graph break, so a compiled model trusts its caller here.
        if not torch.compiler.is_compiling() and bool(
            (frame_mask[:, 1:] & ~frame_mask[:, :-1]).any()
        ):
            raise ValueError(
                "frame_mask has holes: real frames must come first in each row, padding behind them"
            )
        return frame_mask

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:
        """Save weights, config and code; both auto classes are named, whichever of the two this is.

        A second `register_for_auto_class` would overwrite the first, hence by hand here. A pipeline that the config
        names is forgotten where its file is not in the folder: it stayed in the one that the model was loaded from.
        """
        module = __name__.rsplit(".", 1)[-1]
        self.config.auto_map = {
            **(getattr(self.config, "auto_map", None) or {}),
            "AutoModel": f"{module}.MMAMRNNetForIntensity",
            "AutoModelForVideoClassification": f"{module}.MMAMRNNetForVideoClassification",
        }
        pipelines = (getattr(self.config, "custom_pipelines", None) or {}).values()
        files = [f"{pipeline['impl'].split('.')[0]}.py" for pipeline in pipelines]
        # `somebody/repository--file` is found from anywhere.
        if not all("--" in file or Path(save_directory, file).is_file() for file in files):
            del self.config.custom_pipelines
        super().save_pretrained(save_directory, **kwargs)


class MMAMRNNetForVideoClassification(MMAMRNNetForIntensity):
    """The same network, its `logits` being the intensities, for `pipeline("video-classification")` on face crops.

    Of a regression that pipeline shows `logits` as they are, and transformers' own models put their estimates there.
    What `objective` reads and `frame_contributions` adds up to are `MMAMRNNetForIntensity`'s, before the sigmoid.
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
        """As `MMAMRNNetForIntensity.forward`, but that `logits` are the intensities.

        The arguments are named here too: transformers' `Trainer` drops every column that it does not find in a
        model's signature.
        """
        kwargs["return_dict"] = True
        output = super().forward(
            pixel_values, affect, frame_mask, labels, output_hidden_states, **kwargs
        )
        output.logits = output.intensities
        return output


MMAMRNNetForIntensity.register_for_auto_class("AutoModel")
MMAMRNNetForVideoClassification.register_for_auto_class("AutoModelForVideoClassification")
