"""fit(stage, args): the one Accelerate loop. Train, evaluate, keep the best, checkpoint, resume."""

import json
import logging
import math
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup

from mma_mrnnet.metrics import rounded
from mma_mrnnet.training.arguments import TrainArguments, command_line
from mma_mrnnet.training.sampling import EpochSampler
from mma_mrnnet.training.stages import Stage, Tensors

logger = logging.getLogger(__name__)

COMPLETE = "COMPLETE"  # a checkpoint without this file was cut off while it was written


@contextmanager
def replaced_folder(target: Path) -> Iterator[Path]:
    """A fresh folder beside `target` that takes its place when the block ends well, and is removed when it fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)  # a killed run may have left one
    staging.mkdir()
    try:
        yield staging
        if target.exists():
            old = target.with_name(f".{target.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            target.rename(old)
            staging.rename(target)
            shutil.rmtree(old)
        else:
            staging.rename(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_json(path: Path, content: dict) -> None:
    """`content`, rounded, as strict JSON, written beside its target and renamed."""
    staging = path.with_name(f".{path.name}.tmp")
    staging.write_text(json.dumps(rounded(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    staging.replace(path)


class Progress:
    """What a resumed run must know beside weights, optimiser and random states."""

    def __init__(self) -> None:
        self.epoch = 0  # finished epochs
        self.best_score = -math.inf
        self.best_epoch = 0
        self.history: list[dict] = []
        self.seconds = 0.0

    def state_dict(self) -> dict:
        """Plain numbers and lists, as Accelerate stores them."""
        return dict(vars(self))

    def load_state_dict(self, state: dict) -> None:
        """Takes the numbers back."""
        vars(self).update(state)


def fit(stage: Stage, args: TrainArguments) -> dict:
    """Trains a stage and leaves the best model, calibrated and scored, in `args.output / "model"`.

    With several processes each objective is that of the whole batch, as one process would compute it; batch norm in
    training mode sees its own process's share.

    Args:
        stage: from `mma_stage` or `mrnn_stage`.
        args: the run's settings.

    Returns:
        The content of `results.json`.

    Raises:
        RuntimeError: started with another number of processes than `expect_processes`, without a batch to train on, or
            anew in a folder that holds another run's checkpoints.
    """
    torch.set_num_threads(args.threads)
    accelerator = Accelerator()
    if args.expect_processes not in (0, accelerator.num_processes):
        raise RuntimeError(f"expected {args.expect_processes} processes; {accelerator.num_processes} are running")
    set_seed(args.seed, device_specific=True)

    train = _loader(stage, args, training=True)
    validation = _loader(stage, args, training=False)
    steps = args.epochs * (len(train) // accelerator.num_processes)  # a last round that not all could join is dropped
    if steps == 0:
        raise RuntimeError(
            f"{len(stage.train)} training items do not fill one batch of {args.batch_size} "
            f"in each of {accelerator.num_processes} processes"
        )
    parameters = [parameter for parameter in stage.model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=args.learning_rate, weight_decay=args.weight_decay)
    scheduler = get_cosine_schedule_with_warmup(
        # Accelerate steps a prepared scheduler once for each process.
        optimizer,
        int(args.warmup * steps) * accelerator.num_processes,
        steps * accelerator.num_processes,
    )
    model, optimizer, train, validation, scheduler = accelerator.prepare(
        stage.model, optimizer, train, validation, scheduler
    )
    progress = Progress()
    accelerator.register_for_checkpointing(progress)
    _resume(accelerator, args)

    while progress.epoch < args.epochs and not _out_of_patience(progress, args):
        started = time.perf_counter()
        stage.begin_epoch(progress.epoch)
        train.set_epoch(progress.epoch)
        train.generator.manual_seed(args.seed + progress.epoch)  # --workers take their seeds from it, resumed or not
        loss = _train_epoch(accelerator, stage, model, train, optimizer, scheduler, args, progress.epoch)
        scores = stage.score(*_predict(stage, model, validation, accelerator.gather_for_metrics))
        score = scores[stage.score_name]
        progress.epoch += 1
        progress.seconds += time.perf_counter() - started
        row = {"epoch": progress.epoch, "train_loss": loss, "score": score, "seconds": progress.seconds}
        progress.history.append(rounded(row))
        if score > progress.best_score or progress.best_epoch == 0:  # NaN is never better, and any number is than NaN
            progress.best_score = -math.inf if math.isnan(score) else score
            progress.best_epoch = progress.epoch
        if accelerator.is_main_process:
            if progress.best_epoch == progress.epoch:
                _save_model(stage, accelerator.unwrap_model(model), args.output / "best")
            with (args.output / "log.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps({**progress.history[-1], "scores": rounded(scores)}) + "\n")
            logger.info("epoch %d: loss %.4f, %s %.4f", progress.epoch, loss, stage.score_name, score)
        _save_checkpoint(accelerator, args, progress.epoch)

    accelerator.wait_for_everyone()
    results: dict = {}
    if accelerator.is_main_process:
        results = _finish(stage, accelerator.unwrap_model(model), args, progress, accelerator.num_processes)
    accelerator.end_training()
    return results


def _loader(stage: Stage, args: TrainArguments, *, training: bool) -> DataLoader:
    # A generator of its own: otherwise making the iterator draws from the global one and a resumed run differs.
    return DataLoader(
        stage.train if training else stage.validation,
        batch_size=args.batch_size,
        sampler=EpochSampler(stage.order, args.seed) if training else None,
        drop_last=training,
        collate_fn=stage.train_collator if training else stage.collator,
        num_workers=args.workers,
        generator=torch.Generator().manual_seed(args.seed),
    )


def _train_epoch(
    accelerator: Accelerator,
    stage: Stage,
    model: torch.nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    args: TrainArguments,
    epoch: int,
) -> float:
    """One pass; the mean training loss, each batch's over all its processes."""
    model.train()
    total = 0.0
    bar = tqdm(loader, desc=f"epoch {epoch + 1}/{args.epochs}", disable=not accelerator.is_main_process, mininterval=5)
    for batch in bar:
        loss = _global_loss(accelerator, stage, model, batch)
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"the loss is {loss.item()} in epoch {epoch + 1}; lower --learning_rate or check the labels"
            )
        accelerator.backward(loss * accelerator.num_processes)  # gradients are averaged over processes
        accelerator.clip_grad_norm_(model.parameters(), args.max_gradient_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        total += loss.item()
    return total / len(loader)


def _global_loss(accelerator: Accelerator, stage: Stage, model: torch.nn.Module, batch: Tensors) -> Tensor:
    """The objective of the whole batch, also where each process holds only a share of it.

    Outputs and labels of all shares are put together first: means over labelled rows and correlations of shares do
    not average to those of the whole. Batch norm alone still sees its own process's share.
    """
    labels = {name: value for name, value in batch.items() if name.endswith("labels")}
    output = model(**{name: value for name, value in batch.items() if name not in labels})
    if accelerator.num_processes > 1:
        sizes = accelerator.gather(torch.tensor([len(output[stage.loss_names[0]])], device=accelerator.device)).tolist()
        for name in stage.loss_names:
            output[name] = _gathered(output[name], sizes, accelerator.process_index)
        labels = {name: _gathered(value, sizes, accelerator.process_index) for name, value in labels.items()}
    return accelerator.unwrap_model(model).objective(output, **labels)


def _gathered(share: Tensor, sizes: list[int], rank: int) -> Tensor:
    """All processes' shares behind each other, in the order of their ranks; only this one's carries a gradient."""
    padded = torch.cat([share.detach(), share.new_zeros(max(sizes) - len(share), *share.shape[1:])]).contiguous()
    parts = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(parts, padded)
    shares = [part[:size] for part, size in zip(parts, sizes, strict=True)]
    shares[rank] = share
    return torch.cat(shares)


@torch.no_grad()
def _predict(
    stage: Stage, model: torch.nn.Module, batches: Iterable[Tensors], gather: Callable[[Tensors], Tensors]
) -> tuple[Tensors, Tensors]:
    """Outputs and labels of a whole split on the CPU; `gather` brings every item of all processes once."""
    model.eval()
    outputs: list[Tensors] = []
    labels: list[Tensors] = []
    for batch in batches:
        given = {name: value for name, value in batch.items() if name.endswith("labels")}
        inputs = {name: value for name, value in batch.items() if name not in given}
        predicted = model(**inputs)
        wanted = {name: predicted[name].float() for name in stage.output_names}
        outputs.append({name: value.cpu() for name, value in gather(wanted).items()})
        labels.append({name: value.cpu() for name, value in gather(given).items()})
    return _joined(outputs), _joined(labels)


def _joined(parts: list[Tensors]) -> Tensors:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def predict_dataset(
    stage: Stage, model: PreTrainedModel, dataset: torch.utils.data.Dataset, batch_size: int
) -> tuple[Tensors, Tensors]:
    """Outputs and labels of a data set, in this process alone; as `Stage.score` takes them."""
    loader = DataLoader(dataset, batch_size=batch_size, collate_fn=stage.collator)
    batches = ({name: value.to(model.device) for name, value in batch.items()} for batch in loader)
    return _predict(stage, model, batches, lambda values: values)


def _out_of_patience(progress: Progress, args: TrainArguments) -> bool:
    return args.patience > 0 and progress.epoch - progress.best_epoch >= args.patience


def _save_model(stage: Stage, model: PreTrainedModel, folder: Path, extra: dict[str, Path] | None = None) -> None:
    """Writes model, processor and further files (name in the folder: where from), all of it or nothing."""
    with replaced_folder(folder) as staging:
        for name, path in (extra or {}).items():
            shutil.copy(path, staging / name)
        model.save_pretrained(staging)
        stage.processor.save_pretrained(staging)
        for weights in staging.glob("*.safetensors"):
            shutil.copymode(staging / "config.json", weights)  # safetensors lets nobody but the owner read them


def _save_checkpoint(accelerator: Accelerator, args: TrainArguments, epoch: int) -> None:
    folder = args.output / "checkpoints"
    staging, final = folder / f".epoch-{epoch:04d}.tmp", folder / f"epoch-{epoch:04d}"
    if accelerator.is_main_process:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(staging))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        (staging / COMPLETE).write_text(f"{accelerator.num_processes}\n", encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)
        for old in _complete_checkpoints(args.output)[: -args.keep_checkpoints]:
            shutil.rmtree(old)


def _complete_checkpoints(output: Path) -> list[Path]:
    """Oldest first."""
    return sorted(path.parent for path in output.glob(f"checkpoints/epoch-*/{COMPLETE}"))


def _resume(accelerator: Accelerator, args: TrainArguments) -> None:
    """Takes up the newest complete checkpoint where asked to; otherwise refuses to mix two runs in one folder."""
    found = _complete_checkpoints(args.output)
    if found and not args.resume:
        raise RuntimeError(f"{args.output} holds an earlier run: --resume goes on with it, a new --output starts anew")
    if not args.resume:
        return
    if not found:
        logger.warning("%s holds no complete checkpoint; starting anew", args.output)
        return
    processes = int((found[-1] / COMPLETE).read_text())
    if processes != accelerator.num_processes:
        raise RuntimeError(f"{found[-1]} was written by {processes} processes; {accelerator.num_processes} are running")
    accelerator.load_state(str(found[-1]))
    logger.info("resumed from %s", found[-1])


def _finish(stage: Stage, model: PreTrainedModel, args: TrainArguments, progress: Progress, processes: int) -> dict:
    """Reloads the best weights, lets the stage calibrate and report, and writes model and results."""
    best = type(model).from_pretrained(args.output / "best").to(model.device).eval()
    report = stage.finish(best, lambda dataset: predict_dataset(stage, best, dataset, args.batch_size))
    results = {
        "stage": stage.name,
        "command": command_line(args),
        "arguments": {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()},
        "data": stage.description,
        "training": {
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "selected_by": stage.score_name,
            "seconds": progress.seconds,
            "processes": processes,
            "hardware": f"{processes} {model.device.type.upper()} process(es), {args.threads} thread(s) each",
            "history": progress.history,
        },
        "parameters": sum(parameter.numel() for parameter in best.parameters()),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        **report,
    }
    write_json(args.output / "results.json", results)
    own = {f"results_{stage.name}.json": args.output / "results.json"}
    carried = {path.name: path for path in stage.carried_results}
    _save_model(stage, best, args.output / "model", {**carried, **own})
    return rounded(results)
