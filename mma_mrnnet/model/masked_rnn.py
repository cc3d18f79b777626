"""The recurrent part of stage 2: a GRU over padded clips, and what the dense layer behind it reads of its outputs."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaskedRNN(nn.Module):
    """A GRU over padded clips and the mask layer behind it (arXiv 2303.00180, v3 abstract).

    Padding stands at the end and the GRU runs forward, so real frames never see it; the mask then replaces every
    padded output by 0, so the dense layer's weights for those frames get a gradient of exactly 0.

    The mask layer is the method. The other ways are what it is compared with (our choice, each in its usual form);
    `padded` alone has no mask, so what stands in padded frames changes its outputs.

    Args:
        input_size: numbers a frame that the GRU reads.
        hidden_size: H.
        num_layers: layers of the GRU.
        num_frames: T.
        pooling: one of `TEMPORAL_POOLINGS`; see `MMAMRNNetConfig`.
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
        # Without a bias: a softmax does not change where the same is added to every score.
        self.score = nn.Linear(hidden_size, 1, bias=False) if pooling == "attention" else None

    @property
    def pooled_size(self) -> int:
        """P, the length of what `pooled` gives."""
        frames = self.num_frames if self.pooling in ("mask", "padded") else 1
        return frames * self.gru.hidden_size

    def forward(self, affect: Tensor, frame_mask: Tensor) -> Tensor:
        """Masked GRU outputs of every frame.

        Args:
            affect: (B, t, A) with t <= T; whatever lies in padded frames, NaN included, has no effect, but with
                `padded`, where zeros follow it up to T.
            frame_mask: (B, t) bool, True for real frames, a prefix of each row.

        Returns:
            (B, T, H); exactly 0 in padded frames, but with `padded`.
        """
        missing = (0, 0, 0, self.num_frames - affect.shape[1])
        if self.pooling == "padded":
            return self.gru(F.pad(affect, missing))[0]  # (B, T, H)
        real = frame_mask.unsqueeze(-1)  # (B, t, 1)
        states, _ = self.gru(torch.where(real, affect, 0.0))  # (B, t, H)
        return F.pad(torch.where(real, states, 0.0), missing)  # (B, T, H)

    def pooled(self, states: Tensor, frame_mask: Tensor) -> Tensor:
        """What the dense layer reads of a clip.

        Args:
            states: (B, T, H) from `forward`.
            frame_mask: (B, t) as there.

        Returns:
            (B, P): all T frames in a row, or one frame's length; 0 then for a clip without a frame.
        """
        if self.pooling in ("mask", "padded"):
            return states.flatten(1)  # (B, T * H)
        return (self.shares(states, frame_mask).unsqueeze(-1) * states).sum(1)  # (B, H)

    def shares(self, states: Tensor, frame_mask: Tensor) -> Tensor:
        """How much each frame's outputs count in the one that the dense layer reads.

        Args:
            states: (B, T, H) from `forward`.
            frame_mask: (B, t) as there.

        Returns:
            (B, T); of a clip with frames they add up to 1 and are 0 in padded frames, else they meet zeros alone.

        Raises:
            ValueError: with `mask` and `padded` the dense layer reads every frame by weights of its own.
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
        scores = self.score(states).squeeze(-1)  # (B, T)
        # The least number instead of -inf, of which a clip without a frame would get NaN.
        return torch.where(real, scores, torch.finfo(scores.dtype).min).softmax(1)  # (B, T)
