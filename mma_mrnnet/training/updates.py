"""One update of the weights: the exact gradient of the objective, and routed AdamW.

CCC, Pearson and means over labelled rows cannot be averaged over shares. So the outputs and
labels of all processes and micro-batches are joined before the objective is computed.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from mma_mrnnet.training.reports import Tensors
from mma_mrnnet.training.stages import Stage


def backward(
    accelerator: Accelerator, stage: Stage, model: nn.Module, batch: Tensors, micro_batch_size: int
) -> Tensor:
    """Add the gradient of the objective over all processes' batches; return the objective.

    With micro-batches the network runs twice: first without a graph, to get the gradient of
    the objective at each output; then per micro-batch with the same random numbers (dropout),
    to propagate it to the parameters. Memory is that of one micro-batch. Batch norm in
    training mode uses each process's micro-batch, and its running statistics count each
    micro-batch once.

    `batch` is this process's share; names that end in `labels` go to the objective. A
    `micro_batch_size` of 0 means the whole share.
    """
    labels = {name: value for name, value in batch.items() if name.endswith("labels")}
    inputs = {name: value for name, value in batch.items() if name not in labels}
    processes = accelerator.num_processes  # gradients are averaged over these
    # Not decided by the size of this share: all processes must take the same branch.
    if micro_batch_size == 0:
        loss = global_loss(accelerator, stage, model, model(**inputs), labels)
        accelerator.backward(loss * processes)
        return loss.detach()
    splits = [value.split(micro_batch_size) for value in inputs.values()]
    parts = [dict(zip(inputs, values, strict=True)) for values in zip(*splits, strict=True)]
    outputs = _outputs_without_graph(accelerator.unwrap_model(model), parts, stage.loss_names)
    loss = global_loss(accelerator, stage, model, outputs, labels)
    leaves = [outputs[name] for name in stage.loss_names]
    gradients = torch.autograd.grad(loss * processes, leaves)
    shares = zip(*(gradient.split(micro_batch_size) for gradient in gradients), strict=True)
    for number, (part, share) in enumerate(zip(parts, shares, strict=True), 1):
        with nullcontext() if number == len(parts) else accelerator.no_sync(model):
            output = model(**part)
            # The gradient of this loss at each output is the given one, and a float16 gradient
            # scaler can scale it.
            carriers = [
                (output[name] * gradient).sum()
                for name, gradient in zip(stage.loss_names, share, strict=True)
            ]
            accelerator.backward(torch.stack(carriers).sum())
    return loss.detach()


def global_loss(
    accelerator: Accelerator, stage: Stage, model: nn.Module, output: ModelOutput, labels: Tensors
) -> Tensor:
    """Return the scalar objective of the whole update, of which each process holds a share.

    `model` is the prepared one; `output` and `labels` are this process's share, and only this
    share carries a gradient.
    """
    if accelerator.num_processes > 1:
        count = torch.tensor([len(output[stage.loss_names[0]])], device=accelerator.device)
        sizes = accelerator.gather(count).tolist()
        rank = accelerator.process_index
        whole = {name: _gather(output[name], sizes, rank) for name in stage.loss_names}
        output = type(output)(**whole)
        labels = {name: _gather(value, sizes, rank) for name, value in labels.items()}
    return accelerator.unwrap_model(model).objective(output, **labels)


def _gather(share: Tensor, sizes: list[int], rank: int) -> Tensor:
    """Join the shares of all processes by rank; only ours carries a gradient."""
    padding = share.new_zeros(max(sizes) - len(share), *share.shape[1:])
    padded = torch.cat([share.detach(), padding]).contiguous()
    parts = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(parts, padded)
    shares = [part[:size] for part, size in zip(parts, sizes, strict=True)]
    shares[rank] = share
    return torch.cat(shares)


def _outputs_without_graph(
    model: nn.Module, parts: list[Tensors], names: tuple[str, ...]
) -> ModelOutput:
    """Return the parts' outputs as leaf tensors; restore random states and buffers."""
    device = next(model.parameters()).device
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    kept: dict[str, Any] = {"devices": []}
    if device.type != "cpu":
        kept = {"devices": [device], "device_type": device.type}
    with torch.random.fork_rng(**kept), torch.no_grad():
        outputs = [model(**part) for part in parts]
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    joined = {name: torch.cat([output[name] for output in outputs]) for name in names}
    return type(outputs[0])(**{name: value.requires_grad_() for name, value in joined.items()})


class RoutedAdamW(torch.optim.AdamW):
    """AdamW that skips the dense layer's columns of unrouted frames in a step.

    The mask makes their gradient 0, but Adam's momentum and weight decay would still change
    them. Here their weights and moments stay bit-identical, and each frame's columns count
    their own steps, so that a frame first routed late starts with the bias correction of step
    one. Source: the routing rule of the authors' RACNet as we remember it (connections of
    unrouted outputs stay constant); the form is our choice.

    `routed` is the (D, T * H) weight of the dense layer, T = `num_frames` frames of H columns
    each. `settings` are those of `torch.optim.AdamW`.
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
        """Frames of the longest clip in the next update, over all processes and micro-batches."""

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch declares overloads
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Make one update; all parameters except `routed` change as in AdamW."""
        gradient, self.routed.grad = self.routed.grad, None  # AdamW skips it without a gradient
        try:
            loss = super().step(closure)
        finally:
            self.routed.grad = gradient
        if gradient is not None:
            self._step_routed(gradient)
        return loss

    def _step_routed(self, gradient: Tensor) -> None:
        (group,) = self.param_groups
        rate, (beta1, beta2) = group["lr"], group["betas"]
        state = self.state[self.routed]
        if not state:
            state["step"] = torch.zeros(self.num_frames, device=self.routed.device)
            state["exp_avg"] = torch.zeros_like(self.routed)
            state["exp_avg_sq"] = torch.zeros_like(self.routed)
        whole = (self.routed, gradient, state["exp_avg"], state["exp_avg_sq"])
        weight, gradient, mean, square = (
            values.unflatten(1, (self.num_frames, -1))[:, : self.longest]  # (D, longest, H), views
            for values in whole
        )
        state["step"][: self.longest] += 1
        # In float64, because 1 - 0.999 in float32 has an error of 5e-5.
        steps = state["step"][: self.longest, None].double()  # (longest, 1)
        correction1, correction2 = (1 - beta1**steps).to(weight), (1 - beta2**steps).to(weight)
        weight.mul_(1 - rate * group["weight_decay"])
        mean.lerp_(gradient, 1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = square.sqrt() / correction2.sqrt() + group["eps"]
        weight.sub_(rate / correction1 * mean / root)
