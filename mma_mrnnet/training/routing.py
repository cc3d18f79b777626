"""The strict reading of the mask layer's routing: weights of frames that no clip reached stay as they are."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RoutedAdamW(torch.optim.AdamW):
    """AdamW for which the dense layer's columns of unrouted frames do not exist in that step.

    The mask gives such columns a gradient of exactly 0, yet Adam's momentum and weight decay would still move them.
    Here their weights and moments keep every bit, and each frame's columns count their own steps: a frame that is
    first routed late starts as the others started, with Adam's bias correction for a first step.

    Source: the routing rule as remembered from the authors' RACNet (connections of outputs that are not routed stay
    constant until another input routes them); the form is our choice.

    Args:
        parameters: what is trained, `routed` among it.
        routed: the dense layer's weight, (D, T * H), T frames of H columns each.
        num_frames: T.
        settings: as `torch.optim.AdamW` takes them.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        routed: nn.Parameter,
        num_frames: int,
        **settings: Any,
    ) -> None:
        super().__init__(parameters, **settings)
        self.routed = routed
        self.num_frames = num_frames
        self.longest = num_frames
        """Frames of the longest clip of the coming update, over all its processes and micro-batches."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One update; all parameters but `routed` as AdamW does it."""
        gradient, self.routed.grad = self.routed.grad, None  # AdamW leaves out what has no gradient
        try:
            loss = super().step(closure)
        finally:
            self.routed.grad = gradient
        if gradient is not None:
            self._step_routed(gradient)
        return loss

    def _step_routed(self, gradient: Tensor) -> None:
        (group,) = self.param_groups
        rate, decay, epsilon, (beta1, beta2) = (
            group["lr"],
            group["weight_decay"],
            group["eps"],
            group["betas"],
        )
        state = self.state[self.routed]
        if not state:
            state["step"] = torch.zeros(self.num_frames, device=self.routed.device)
            state["exp_avg"] = torch.zeros_like(self.routed)
            state["exp_avg_sq"] = torch.zeros_like(self.routed)
        weight, gradient, mean, square = (
            values.unflatten(1, (self.num_frames, -1))[:, : self.longest]  # (D, longest, H), views
            for values in (self.routed, gradient, state["exp_avg"], state["exp_avg_sq"])
        )
        state["step"][: self.longest] += 1
        steps = state["step"][
            : self.longest, None
        ].double()  # (longest, 1); 1 - 0.999 in float32 is off by 5e-5
        correction1, correction2 = (1 - beta1**steps).to(weight), (1 - beta2**steps).to(weight)
        weight.mul_(1 - rate * decay)
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = square.sqrt() / correction2.sqrt() + epsilon
        weight.sub_(rate / correction1 * mean / root)
