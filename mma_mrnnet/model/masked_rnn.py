"""The recurrent part of stage 2: a GRU over padded clips, mask layer, pooling over frames."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
        # Only with `attention`. No bias, since a softmax cancels it.
        self.score: nn.Linear | None = None
        if pooling == "attention":
            self.score = nn.Linear(hidden_size, 1, bias=False)

    @property
    def pooled_size(self) -> int:
        """P, the length of the vector that `pooled` returns for a clip."""
        frames = self.num_frames if self.pooling in ("mask", "padded") else 1
        return frames * self.gru.hidden_size

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

        All T frames concatenated (`mask`, `padded`), or a weighted sum, 0 without frames.
        """
        if self.pooling in ("mask", "padded"):
            return states.flatten(1)  # (B, T * H)
        return (self.shares(states, frame_mask).unsqueeze(-1) * states).sum(1)  # (B, H)

    def shares(self, states: Tensor, frame_mask: Tensor) -> Tensor:
        """Compute the weight of each frame in the pooled sum; arguments as in `pooled`.

        Returns (B, T): 0 in padded frames, sum 1; arbitrary for a clip without frames, whose
        states are all 0. Raises ValueError for `mask` and `padded`, which have no such sum.
        """
        if self.pooling in ("mask", "padded"):
            raise ValueError(
                f"with {self.pooling} pooling frames have no shares: each has weights of its own"
            )
        real = F.pad(frame_mask, (0, self.num_frames - frame_mask.shape[1]))  # (B, T)
        lengths = frame_mask.sum(1, keepdim=True)  # (B, 1)
        if self.pooling == "last":
            places = torch.arange(self.num_frames, device=states.device)
            return (places == lengths - 1).to(states.dtype)  # (B, T)
        if self.pooling == "mean":
            return real.to(states.dtype) / lengths.clamp(min=1)  # (B, T)
        scores = self.attention_scores(states).squeeze(-1)  # (B, T)
        # Not -inf, which gives NaN for a clip without frames.
        return torch.where(real, scores, torch.finfo(scores.dtype).min).softmax(1)  # (B, T)

    def attention_scores(self, states: Tensor) -> Tensor:
        """Compute the learnt score (..., 1) of GRU outputs (..., H); only with `attention`."""
        if self.score is None:
            raise ValueError(f"{self.pooling} pooling has no attention scores")
        return self.score(states)
