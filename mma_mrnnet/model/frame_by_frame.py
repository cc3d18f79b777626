"""A clip frame by frame: what each frame added to the outputs, and the estimate after each new frame."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.utils.generic import ModelOutput


@dataclass
class FrameContributions(ModelOutput):
    """What each frame added to the outputs of B clips: `logits` are `constant` plus the sum of `contributions`.

    Attributes:
        contributions: (B, T, K) on the scale of `logits`, before sigmoid and calibration: above 0 the frame raised
            the target. 0 in padded frames (with `padded` pooling, which reads them as frames, what they added).
        constant: (B, K) what remains without any frame: the biases, through the clip's own gates.
        logits: (B, K) as in `IntensityOutput`.
    """

    contributions: Tensor | None = None
    constant: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class StreamState:
    """What `step` remembers of the frames so far; its size does not grow. It carries no gradient.

    Attributes:
        frames: number of frames so far, the same in all B streams.
        hidden: (layers, B, H) the GRU's hidden state.
        total: what the frames add up to: of their shares of the dense layer, (B, D), with `mask` pooling; of the GRU's
            outputs, (B, H), with `mean`, each weighed by exp(score - `peak`) with `attention`; the newest with `last`.
        weight: (B, 1) what `total` is divided by: the number of frames, or the sum of these exponentials.
        peak: (B, 1) the largest attention score so far; -inf without attention.
    """

    frames: int
    hidden: Tensor
    total: Tensor
    weight: Tensor
    peak: Tensor


@dataclass
class StepOutput(ModelOutput):
    """The estimate after a frame.

    Attributes:
        intensities: (B, K) as in `IntensityOutput`, of the frames so far.
        logits: (B, K) before the sigmoid and the calibration.
        state: for the next `step`.
    """

    intensities: Tensor | None = None
    logits: Tensor | None = None
    state: StreamState | None = None


class FrameByFrame:
    """`MMAMRNNetForIntensity`'s two ways of looking at single frames; it has no weights of its own."""

    def frame_contributions(
        self,
        pixel_values: Tensor | None = None,
        affect: Tensor | None = None,
        frame_mask: Tensor | None = None,
    ) -> FrameContributions:
        """Exactly how much each frame added to each output before its sigmoid (our addition).

        Behind the GRU the network is linear but for the dense layer's ReLU. With the clip's own gates g (1 where a
        dense unit's input is above 0, else 0), dense weights W and b, output weights w and c,

            z_k = c_k + sum_u w_ku g_u b_u + sum_t sum_u w_ku g_u (W_t h_t)_u

        where W_t are the dense layer's columns for frame t or, where frames are pooled, W times the frame's share
        (with `attention` the clip's own).

        An account, not a cause. h_t carries what the GRU read in earlier frames, and gates and shares depend on the
        whole clip: without a frame the outputs would not change by that frame's contribution. Whether the estimate is
        right is another question too.

        Args:
            pixel_values: as in `forward`.
            affect: as in `forward`; exactly one of the two.
            frame_mask: as in `forward`.

        Returns:
            A `FrameContributions`; its sum equals `logits` to float rounding, and `forward`'s outside autocast.

        Raises:
            ValueError: the model is in training mode, where dropout would not let it add up, its weights are quantised,
                or what `forward` refuses.
        """
        self._require_eval("frame_contributions")
        self._require_plain_weights("frame_contributions")
        _, states, frame_mask = self._encoded(pixel_values, affect, frame_mask)  # (B, T, H)
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
        """(B, T, D): what each frame adds to the dense layer's input of its ReLU, without the bias."""
        weight = self.dense.weight.to(states.dtype)
        if self.config.temporal_pooling in ("mask", "padded"):
            by_place = weight.unflatten(1, (self.rnn.num_frames, states.shape[-1]))  # (D, T, H)
            return torch.einsum("bth,dth->btd", states, by_place)
        shares = self.rnn.shares(states.to(self.calibration_scale.dtype), frame_mask)  # (B, T)
        return shares.unsqueeze(-1) * F.linear(states, weight)

    @torch.no_grad()
    def step(self, affect: Tensor, state: StreamState | None = None) -> StepOutput:
        """The intensities after one more frame, at a cost that does not depend on how many came before (our addition).

        Equal to `forward` on all frames so far, to float rounding, for up to T frames. The frames are those that
        `forward` would get: sampled at `config.sampling_fps`, those without a face left out. `LiveReader` does that.
        Computed without gradients.

        Args:
            affect: (B, A) float, one new frame of each of B streams, in the order of `config.input_names`.
            state: of the step before, unchanged by this one; None starts.

        Returns:
            A `StepOutput`; its `state` goes into the next step.

        Raises:
            ValueError: training mode; a wrong shape, or a value that is NaN; a state of another model or batch; a frame
                after the T-th; `padded` pooling, where every new frame changes all that follows it; `mask` pooling with
                quantised weights.
        """
        self._check_step(affect, state)
        real = torch.ones(len(affect), 1, dtype=torch.bool, device=affect.device)
        frame = self._chosen(self._prepared(affect.unsqueeze(1), real))  # (B, 1, C)
        outputs, hidden = self.rnn.gru(frame, None if state is None else state.hidden)
        newest = outputs[:, 0]  # (B, H)
        state = self._start(newest) if state is None else state
        state = self._added(newest, hidden, state)

        pooled = (state.total / state.weight).to(self.calibration_scale.dtype)  # the weights'
        dense = (
            pooled + self.dense.bias
            if self.config.temporal_pooling == "mask"
            else self.dense(pooled)
        )  # (B, D)
        logits = self._logits(dense)
        return StepOutput(intensities=self._intensities(logits), logits=logits, state=state)

    def _start(self, newest: Tensor) -> StreamState:
        """The state of B streams before their first frame; `newest` (B, H) gives size, type and device."""
        width = (
            self.config.dense_size if self.config.temporal_pooling == "mask" else newest.shape[-1]
        )
        total = newest.new_zeros(len(newest), width, dtype=_at_least_float32(newest.dtype))
        weight = total.new_zeros(len(newest), 1)
        return StreamState(0, newest, total, weight, torch.full_like(weight, -torch.inf))

    def _added(self, newest: Tensor, hidden: Tensor, state: StreamState) -> StreamState:
        """The state with one more frame, whose GRU output is `newest` (B, H)."""
        pooling, count, wide = self.config.temporal_pooling, state.frames + 1, state.total.dtype
        total, weight, peak = state.total, torch.ones_like(state.weight), state.peak
        if pooling == "mask":
            place = slice(state.frames * newest.shape[-1], count * newest.shape[-1])
            total = total + F.linear(newest, self.dense.weight[:, place].to(newest.dtype)).to(wide)
        elif pooling == "last":
            total = newest.to(wide)
        elif pooling == "mean":
            total, weight = total + newest.to(wide), state.weight + 1
        else:  # attention; the softmax's sums, rescaled whenever a larger score comes (Milakov & Gimelshein, 2018)
            score = self.rnn.score(newest).to(wide)  # (B, 1)
            peak = state.peak.maximum(score)
            before, now = (
                (state.peak - peak).exp(),
                (score - peak).exp(),
            )  # (B, 1); exp(-inf) = 0 at the first frame
            total, weight = before * total + now * newest.to(wide), before * state.weight + now
        return StreamState(count, hidden, total, weight, peak)

    def _check_step(self, affect: Tensor, state: StreamState | None) -> None:
        self._require_eval("step")
        config, size = self.config, self.config.input_size
        if config.temporal_pooling == "padded":
            raise ValueError(
                "a model with padded pooling cannot go frame by frame: its GRU runs on over the padding behind the "
                "newest frame, so that every frame changes all that follows; give forward the frames so far"
            )
        if config.temporal_pooling == "mask":
            self._require_plain_weights("step with mask pooling")
        if affect.ndim != 2 or affect.shape[1] != size or not affect.is_floating_point():
            raise ValueError(
                f"affect must be (B, {size}) float, one frame; got {affect.dtype} {tuple(affect.shape)}"
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
                f"this model reads at most {config.num_frames} frames (config.num_frames), and the state already holds "
                f"{state.frames}; beyond these, give forward the latest {config.num_frames} (LiveReader does so)"
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
                f"{name} takes the dense layer's weights apart, and these are quantised: load the model as it is"
            )


def _at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The type in which frames are added up: sums of half precision would lose them."""
    return torch.promote_types(dtype, torch.float32)
