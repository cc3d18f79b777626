"""The exact gradient of a whole update's objective, however many processes and micro-batches it is spread over.

Means over labelled rows, CCC and Pearson of shares do not average to those of the whole; so all shares' outputs and
labels are put together before an objective is computed.
"""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput

from mma_mrnnet.training.stages import Stage, Tensors


def backward(
    accelerator: Accelerator, stage: Stage, model: nn.Module, batch: Tensors, micro_batch_size: int
) -> Tensor:
    """Adds the gradient of the objective over all processes' batches to the parameters.

    With micro-batches the network runs twice: once without a graph for the outputs, whose objective gives the exact
    gradient at each output, and once more, micro-batch by micro-batch with the same random numbers (dropout), to
    carry that gradient to the parameters. Memory is that of one micro-batch. Batch norm in training mode sees its own
    micro-batch in its own process, and its running statistics count each micro-batch once.

    Args:
        accelerator: of the run.
        stage: names the outputs that its model's `objective` reads.
        model: as `accelerator.prepare` made it.
        batch: this process's share of the update; names that end in `labels` go to the objective.
        micro_batch_size: items that go through the network at once; 0 takes the whole share.

    Returns:
        The objective, a scalar without a graph.
    """
    labels = {name: value for name, value in batch.items() if name.endswith("labels")}
    inputs = {name: value for name, value in batch.items() if name not in labels}
    # Not decided by this share's size: another process's may differ, and all must meet in the same order.
    if micro_batch_size == 0:
        loss = global_loss(accelerator, stage, model, model(**inputs), labels)
        accelerator.backward(
            loss * accelerator.num_processes
        )  # gradients are averaged over processes
        return loss.detach()
    parts = [
        dict(zip(inputs, values, strict=True))
        for values in zip(
            *(value.split(micro_batch_size) for value in inputs.values()), strict=True
        )
    ]
    outputs = _outputs_without_graph(accelerator.unwrap_model(model), parts, stage.loss_names)
    loss = global_loss(accelerator, stage, model, outputs, labels)
    gradients = torch.autograd.grad(
        loss * accelerator.num_processes, [outputs[name] for name in stage.loss_names]
    )
    shares = zip(*(gradient.split(micro_batch_size) for gradient in gradients), strict=True)
    for number, (part, share) in enumerate(zip(parts, shares, strict=True), 1):
        with nullcontext() if number == len(parts) else accelerator.no_sync(model):
            output = model(**part)
            # Its gradient at each output is the given one, and a scaler of float16 gradients finds a loss to scale.
            carrier = [
                (output[name] * gradient).sum()
                for name, gradient in zip(stage.loss_names, share, strict=True)
            ]
            accelerator.backward(torch.stack(carrier).sum())
    return loss.detach()


def global_loss(
    accelerator: Accelerator,
    stage: Stage,
    model: nn.Module,
    output: ModelOutput,
    labels: Mapping[str, Tensor],
) -> Tensor:
    """The objective of the whole update, where each process holds only a share of it; scalar.

    Args:
        accelerator: of the run.
        stage: names the outputs that the objective reads.
        model: as `accelerator.prepare` made it.
        output: of this process's share; only this share carries a gradient.
        labels: of this process's share.
    """
    if accelerator.num_processes > 1:
        sizes = accelerator.gather(
            torch.tensor([len(output[stage.loss_names[0]])], device=accelerator.device)
        ).tolist()
        whole = {
            name: _gathered(output[name], sizes, accelerator.process_index)
            for name in stage.loss_names
        }
        output = type(output)(**whole)
        labels = {
            name: _gathered(value, sizes, accelerator.process_index)
            for name, value in labels.items()
        }
    return accelerator.unwrap_model(model).objective(output, **labels)


def _gathered(share: Tensor, sizes: list[int], rank: int) -> Tensor:
    """All processes' shares behind each other, in the order of their ranks; only this one's carries a gradient."""
    padded = torch.cat(
        [share.detach(), share.new_zeros(max(sizes) - len(share), *share.shape[1:])]
    ).contiguous()
    parts = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(parts, padded)
    shares = [part[:size] for part, size in zip(parts, sizes, strict=True)]
    shares[rank] = share
    return torch.cat(shares)


def _outputs_without_graph(
    model: nn.Module, parts: list[Tensors], names: tuple[str, ...]
) -> ModelOutput:
    """The parts' outputs behind each other, as leaves; random states and buffers are left as they were."""
    device = next(model.parameters()).device
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    kept = (
        {"devices": []}
        if device.type == "cpu"
        else {"devices": [device], "device_type": device.type}
    )
    with torch.random.fork_rng(**kept), torch.no_grad():
        outputs = [model(**part) for part in parts]
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    joined = {
        name: torch.cat([output[name] for output in outputs]).requires_grad_() for name in names
    }
    return type(outputs[0])(**joined)
