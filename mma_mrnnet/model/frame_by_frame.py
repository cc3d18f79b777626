"""Contributions of single frames to the outputs, and inference one frame at a time."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from .configuration_mma_mrnnet import MMAMRNNetConfig
from .masked_rnn import MaskedRNN


@dataclass
class FrameContributions(ModelOutput):
    """Contributions of frames to the outputs of B clips.

    `logits` equal `constant` plus the sum of `contributions` over the frames.

    Attributes:
        contributions: (B, T, K) on the scale of `logits`; positive if the frame raised the
            target. 0 in padded frames, except with `padded` pooling.
        constant: (B, K) the part of the biases, through the clip's ReLU gates.
        logits: (B, K) as in `IntensityOutput`.
    """

    # Always set; `ModelOutput` requires the defaults.
    contributions: Tensor = None  # type: ignore[assignment]
    constant: Tensor = None  # type: ignore[assignment]
    logits: Tensor = None  # type: ignore[assignment]


@dataclass(frozen=True)
class StreamState:
    """State of `step` between frames; no gradient.

    Attributes:
        hidden: (layers, B, H) the GRU's hidden state.
        outputs: (B, L, H) the GRU's outputs for the L <= T frames so far.
    """

    hidden: Tensor
    outputs: Tensor

    @property
    def frames(self) -> int:
        """Number of frames so far, the same in all B streams."""
        return self.outputs.shape[1]


@dataclass
class StepOutput(ModelOutput):
    """Estimate (B, K) after a frame, as in `IntensityOutput`; pass `state` to the next `step`."""

    # Always set; `ModelOutput` requires the defaults.
    intensities: Tensor = None  # type: ignore[assignment]
    logits: Tensor = None  # type: ignore[assignment]
    state: StreamState = None  # type: ignore[assignment]


class FrameByFrame:
    """Methods of `MMAMRNNetForIntensity` for single frames; adds no weights."""

    if TYPE_CHECKING:  # attributes of `MMAMRNNetForIntensity`
        config: MMAMRNNetConfig
        rnn: MaskedRNN
        dense: nn.Linear
        output: nn.Linear
        calibration_scale: Tensor
        training: bool

        def _encode(
            self, pixel_values: Tensor | None, affect: Tensor | None, frame_mask: Tensor | None
        ) -> tuple[Tensor, Tensor, Tensor]: ...
        def _prepare_affect(self, affect: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]: ...
        def _logits(self, dense: Tensor) -> Tensor: ...
        def _intensities(self, logits: Tensor) -> Tensor: ...

    def frame_contributions(
        self,
        pixel_values: Tensor | None = None,
        affect: Tensor | None = None,
        frame_mask: Tensor | None = None,
    ) -> FrameContributions:
        """Compute how much each frame added to each logit, exactly (our addition).

        After the GRU, the network is linear except for the dense layer's ReLU. With the clip's
        own gates g (1 if a dense unit's input is positive, else 0), dense weights W and bias
        b, output weights w and bias c:

            z_k = c_k + sum_u w_ku g_u b_u + sum_t sum_u w_ku g_u (W_t h_t)_u

        W_t are the dense layer's columns for frame t. With a pooled sum, W_t h_t is W times
        the frame's part of it (`MaskedRNN.split_by_frame`).

        A contribution is not a causal effect: h_t depends on earlier frames, and gates and
        parts depend on the whole clip. Removing a frame can change the logits by another
        amount.

        Arguments as in `forward`: exactly one of `pixel_values` and `affect`.

        Raises:
            ValueError: the model is in training mode (dropout would break the sum), its
                weights are quantised, or `forward` refuses the input.
        """
        self._require_eval("frame_contributions")
        self._require_plain_weights("frame_contributions")
        _, states, frame_mask = self._encode(pixel_values, affect, frame_mask)  # (B, T, H)
        with torch.autocast(states.device.type, enabled=False):
            states = states.to(self.calibration_scale.dtype)  # the weights'
            dense = self.dense(self.rnn.pooled(states, frame_mask))  # (B, D)
            wide = _at_least_float32(dense.dtype)
            gated = self.output.weight.to(wide) * (dense > 0).unsqueeze(1)  # (B, K, D)
            per_frame = self._dense_by_frame(states.to(wide), frame_mask)  # (B, T, D)
            return FrameContributions(
                contributions=per_frame @ gated.mT,  # (B, T, K)
                constant=self.output.bias.to(wide) + gated @ self.dense.bias.to(wide),  # (B, K)
                logits=self._logits(dense),
            )

    def _dense_by_frame(self, states: Tensor, frame_mask: Tensor) -> Tensor:
        """Compute each frame's part (B, T, D) of the dense layer's output, without the bias."""
        weight = self.dense.weight.to(states.dtype)
        if self.config.temporal_pooling in ("mask", "padded"):
            by_place = weight.unflatten(1, (self.rnn.num_frames, states.shape[-1]))  # (D, T, H)
            return torch.einsum("bth,dth->btd", states, by_place)
        parts = self.rnn.split_by_frame(states.to(self.calibration_scale.dtype), frame_mask)
        return F.linear(parts.to(states.dtype), weight)

    @torch.no_grad()
    def step(self, affect: Tensor, state: StreamState | None = None) -> StepOutput:
        """Estimate the intensities after one more frame (our addition).

        Equals `forward` on the frames so far, up to float rounding, without running the GRU
        over them again; only the pooling reads all of them. Pass the frames that
        `forward` would get: sampled at `config.sampling_fps`, faces only, at most T
        (`LiveReader` does this). Computes no gradients.

        Args:
            affect: (B, A) float, one new frame of each of B streams, in the order of
                `config.input_names`.
            state: of the previous step, not modified; None for the first frame.

        Raises:
            ValueError: training mode; a wrong shape or NaN; a state of another model or
                batch size; more than T frames; `padded` pooling.
        """
        self._check_step(affect, state)
        real = torch.ones(len(affect), 1, dtype=torch.bool, device=affect.device)
        _, frame = self._prepare_affect(affect.unsqueeze(1), real)  # (B, 1, C)
        outputs, hidden = self.rnn.gru(frame, None if state is None else state.hidden)
        if state is not None:
            outputs = torch.cat([state.outputs, outputs], 1)  # (B, L, H)
        states = F.pad(outputs, (0, 0, 0, self.rnn.num_frames - outputs.shape[1]))  # (B, T, H)
        frame_mask = real.expand(-1, outputs.shape[1])  # (B, L)
        logits = self._logits(self.dense(self.rnn.pooled(states, frame_mask)))
        intensities = self._intensities(logits)
        state = StreamState(hidden, outputs)
        return StepOutput(intensities=intensities, logits=logits, state=state)

    def _check_step(self, affect: Tensor, state: StreamState | None) -> None:
        self._require_eval("step")
        config, size = self.config, self.config.input_size
        if config.temporal_pooling == "padded":
            raise ValueError(
                "a model with padded pooling cannot go frame by frame: its GRU runs on over the "
                "padding, so every frame changes all that follows; give forward the frames so far"
            )
        if affect.ndim != 2 or affect.shape[1] != size or not affect.is_floating_point():
            raise ValueError(
                f"affect must be (B, {size}) float, one frame; "
                f"got {affect.dtype} {tuple(affect.shape)}"
            )
        if affect.isnan().any():
            raise ValueError("affect holds NaN: leave out frames without a face, they are no step")
        if state is None:
            return
        wanted = (config.num_hidden_layers, len(affect), config.hidden_size)
        if tuple(state.hidden.shape) != wanted:
            raise ValueError(
                f"the state must be of this model and of {len(affect)} streams, hidden {wanted}; "
                f"got {tuple(state.hidden.shape)}"
            )
        if state.frames >= config.num_frames:
            raise ValueError(
                f"this model reads at most {config.num_frames} frames (config.num_frames), and the "
                f"state already holds {state.frames}; beyond these, give forward the latest "
                f"{config.num_frames} (LiveReader does so)"
            )

    def _require_eval(self, name: str) -> None:
        if self.training:
            raise ValueError(
                f"{name} reads a finished model: call model.eval() first, which turns dropout off"
            )

    def _require_plain_weights(self, name: str) -> None:
        weight = self.dense.weight
        if not (isinstance(weight, Tensor) and weight.is_floating_point()):
            raise ValueError(
                f"{name} takes the dense layer's weights apart, and these are quantised: "
                "load the model as it is"
            )


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype for sums over frames; half precision is too coarse."""
    return torch.promote_types(dtype, torch.float32)
