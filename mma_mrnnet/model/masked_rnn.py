"""The recurrent part of stage 2: a GRU over padded clips, mask layer, pooling over frames."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEVIATION_EPSILON = 1e-5
"""Keeps the gradient of a deviation finite where a state does not vary."""


class MaskedRNN(nn.Module):
    """A GRU over padded clips, followed by the mask layer (arXiv 2303.00180, v3 abstract).

    Padding is at the end and the GRU runs forward, so padding cannot affect real frames.
    The mask then sets every padded output to 0, so the dense layer's weights for those
    frames get a gradient of exactly 0. The other poolings (`TEMPORAL_POOLINGS`) are for
    comparison (our choice). Only `padded` has no mask: there, padding affects the output.

    A clip has up to `num_frames` = T frames of `input_size` numbers; `hidden_size` is H.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        num_frames: int,
        pooling: str = "mask",
    ) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.pooling = pooling
        self.gru = nn.GRU(input_size, hidden_size, num_layers, batch_first=True)
        # No bias, since a softmax cancels it.
        self.score: nn.Linear | None = None
        if pooling in ("attention", "statistics"):
            self.score = nn.Linear(hidden_size, 1, bias=False)

    @property
    def pooled_size(self) -> int:
        """P, the length of the vector that `pooled` returns for a clip."""
        vectors = {"mask": self.num_frames, "padded": self.num_frames, "statistics": 6}
        return vectors.get(self.pooling, 1) * self.gru.hidden_size

    def forward(self, affect: Tensor, frame_mask: Tensor) -> Tensor:
        """Run the GRU and mask its outputs.

        Args:
            affect: (B, t, A), t <= T. Values in padded frames, including NaN, have no
                effect, except with `padded`.
            frame_mask: (B, t) bool, True for real frames, which must come first.

        Returns:
            (B, T, H); exactly 0 in padded frames, except with `padded`.
        """
        missing = (0, 0, 0, self.num_frames - affect.shape[1])
        if self.pooling == "padded":
            return self.gru(F.pad(affect, missing))[0]  # (B, T, H)
        real = frame_mask.unsqueeze(-1)  # (B, t, 1)
        states, _ = self.gru(torch.where(real, affect, 0.0))  # (B, t, H)
        return F.pad(torch.where(real, states, 0.0), missing)  # (B, T, H)

    def pooled(self, states: Tensor, frame_mask: Tensor) -> Tensor:
        """Pool `forward`'s states (B, T, H) into the input (B, P) of the dense layer.

        All T frames concatenated (`mask`, `padded`), or the sum of `split_by_frame`, which is
        0 without frames.
        """
        if self.pooling in ("mask", "padded"):
            return states.flatten(1)  # (B, T * H)
        return self.split_by_frame(states, frame_mask).sum(1)

    def split_by_frame(self, states: Tensor, frame_mask: Tensor) -> Tensor:
        """Split the pooled vector into one part per frame; arguments as in `pooled`.

        Returns (B, T, P), whose sum over the frames is the pooled vector; 0 in padded frames.
        `last`, `mean` and `attention` have P = H: each frame's share of its state.
        `statistics` (our choice) has P = 6 H, of each state over the real frames: the mean
        weighted by attention, the mean, the means of the first and of the last third (at
        least one frame), the maximum (its first frame has all of it) and the standard
        deviation (each frame has its squared distance from the mean / (L * deviation)).

        Raises:
            ValueError: `mask` or `padded`, where frames have dense weights of their own.
        """
        if self.pooling in ("mask", "padded"):
            raise ValueError(
                f"{self.pooling} pooling is no sum over frames: each has weights of its own"
            )
        real = F.pad(frame_mask, (0, self.num_frames - frame_mask.shape[1]))  # (B, T)
        lengths = frame_mask.sum(1, keepdim=True)  # (B, 1)
        places = torch.arange(self.num_frames, device=states.device)
        if self.pooling == "last":
            return (places == lengths - 1).to(states.dtype).unsqueeze(-1) * states
        mean = real.to(states.dtype) / lengths.clamp(min=1)  # (B, T)
        if self.pooling == "mean":
            return mean.unsqueeze(-1) * states
        attention = self._attention(states, real)  # (B, T)
        if self.pooling == "attention":
            return attention.unsqueeze(-1) * states
        third = (lengths // 3).clamp(min=1)
        first = (real & (places < third)).to(states.dtype) / third
        last = (real & (places >= lengths - third)).to(states.dtype) / third
        shares = torch.stack([attention, mean, first, last], -1)  # (B, T, 4)
        weighted = shares.unsqueeze(-1) * states.unsqueeze(2)  # (B, T, 4, H)
        spread = self._split_spread(states, real, mean)  # (B, T, 2, H)
        return torch.cat([weighted, spread], 2).flatten(2)  # (B, T, 6 * H)

    def _attention(self, states: Tensor, real: Tensor) -> Tensor:
        """Compute each frame's share (B, T) by its learnt score; arbitrary without frames."""
        scores = cast("nn.Linear", self.score)(states).squeeze(-1)  # (B, T)
        # Not -inf, which gives NaN for a clip without frames.
        return torch.where(real, scores, torch.finfo(scores.dtype).min).softmax(1)

    @staticmethod
    def _split_spread(states: Tensor, real: Tensor, mean: Tensor) -> Tensor:
        """Split maximum and standard deviation into the frames' parts (B, T, 2, H)."""
        real = real.unsqueeze(-1)
        peaks = torch.where(real, states, torch.finfo(states.dtype).min).argmax(1, keepdim=True)
        places = torch.arange(states.shape[1], device=states.device).view(1, -1, 1)
        maximum = torch.where(places == peaks, states, 0.0)  # (B, T, H)
        shares = mean.unsqueeze(-1)
        centred = states - (shares * states).sum(1, keepdim=True)
        squares = shares * centred.square()  # their sum is the variance
        deviation = squares / (squares.sum(1, keepdim=True) + DEVIATION_EPSILON).sqrt()
        return torch.stack([maximum, deviation], 2)
