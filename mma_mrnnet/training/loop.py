"""The one Accelerate loop, `fit`: train, evaluate, keep the best model, checkpoint, resume."""

import json
import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import torch
import transformers
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import set_seed
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PreTrainedModel, get_scheduler

from mma_mrnnet.files import replaced_folder, write_json, write_text
from mma_mrnnet.results import Results, RunResults, Training
from mma_mrnnet.training.arguments import SCHEDULES, TrainArguments, command_line, plain_values
from mma_mrnnet.training.checkpoints import (
    Progress,
    check_accumulation,
    resume,
    save_checkpoint,
    settings_of,
)
from mma_mrnnet.training.reports import Tensors
from mma_mrnnet.training.sampling import EpochSampler
from mma_mrnnet.training.stages import Stage
from mma_mrnnet.training.updates import RoutedAdamW, backward

logger = logging.getLogger(__name__)


def fit(stage: Stage, args: TrainArguments) -> Results | None:
    """Train a stage and write the best model, calibrated and scored, to `args.output / "model"`.

    Returns the content of `results.json`, or None in all processes except the main one.
    Objectives cover the whole update, also with several processes or micro-batches; only batch
    norm in training mode uses each process's own share.

    Raises:
        ValueError: a tracker is not installed.
        RuntimeError: the number of processes is not `expect_processes`, there is no training
            batch, the folder holds another run's checkpoints, or settings changed on resuming.
    """
    torch.set_num_threads(args.threads)
    run = Run(stage, args)
    while not run.is_finished():
        run.train_epoch()
        run.validate()
        run.save()
        run.keep_best()
    run.accelerator.wait_for_everyone()
    results = run.finish() if run.accelerator.is_main_process else None
    run.accelerator.end_training()
    return results


class Run:
    """State of a run: everything that Accelerate prepared, and the progress."""

    def __init__(self, stage: Stage, args: TrainArguments) -> None:
        self.stage, self.args = stage, args
        self.accelerator = accelerator = _make_accelerator(args)
        set_seed(args.seed, device_specific=True)
        self.sampler = EpochSampler(stage.order, args.seed)
        train, validation = _make_loader(stage, args, self.sampler), _make_loader(stage, args)
        # Drop a last round that some processes could not join.
        steps = args.epochs * (len(train) // accelerator.num_processes)
        if steps == 0:
            raise RuntimeError(
                f"{len(self.sampler)} training items do not fill one batch of {args.batch_size} "
                f"in each of {accelerator.num_processes} processes"
            )
        optimizer = _make_optimizer(stage.model, args)
        self.routed = optimizer if isinstance(optimizer, RoutedAdamW) else None
        # Accelerate steps a prepared scheduler once per process.
        warmup = int(args.warmup * steps) * accelerator.num_processes
        total = steps * accelerator.num_processes
        scheduler = get_scheduler(SCHEDULES[args.schedule], optimizer, warmup, total)
        self.model, self.optimizer, self.train, self.validation, self.scheduler = (
            accelerator.prepare(stage.model, optimizer, train, validation, scheduler)
        )
        self.settings = settings_of(accelerator, args, stage.fingerprint)
        resumed = resume(accelerator, args, self.settings, len(self.sampler))
        self.progress = resumed or Progress()
        if resumed:
            self._take_rates_from_arguments()
            self.keep_best()
        if args.log_with:
            plain = plain_values(args).items()
            logged = {name: value or 0 for name, value in plain if not isinstance(value, list)}
            accelerator.init_trackers("mma_mrnnet", config=logged)

    def is_finished(self) -> bool:
        """Whether all epochs are done or patience is exhausted."""
        args, progress = self.args, self.progress
        waited = progress.epoch - progress.best_epoch
        return progress.epoch >= args.epochs or 0 < args.patience <= waited

    def train_epoch(self) -> None:
        """Train the rest of the current epoch."""
        args, progress, accelerator = self.args, self.progress, self.accelerator
        started = time.perf_counter()
        self.stage.begin_epoch(progress.epoch)
        self.train.set_epoch(progress.epoch)
        self.sampler.start = progress.items
        # Data loader workers take their seeds from this generator.
        self.train.generator.manual_seed(args.seed + progress.epoch)
        self.model.train()
        of_update = args.batch_size * accelerator.num_processes
        bar = tqdm(
            self.train,
            desc=f"epoch {progress.epoch + 1}/{args.epochs}",
            initial=progress.items // of_update,
            total=len(self.sampler) // of_update,
            # If warnings are off, show no bar: bars of parallel runs would mix.
            disable=not (accelerator.is_main_process and logger.isEnabledFor(logging.WARNING)),
            mininterval=5,
        )
        for batch in bar:
            progress.loss_total += self.update(batch)
            progress.updates += 1
            progress.items += of_update
            if args.save_every and progress.updates % args.save_every == 0:
                progress.seconds += time.perf_counter() - started
                started = time.perf_counter()
                self.save()
        progress.seconds += time.perf_counter() - started

    def update(self, batch: Tensors) -> float:
        """Make one optimizer step and return the objective before it."""
        args, accelerator = self.args, self.accelerator
        micro_batch_size = args.micro_batch_size if args.micro_batch_size < args.batch_size else 0
        loss = backward(accelerator, self.stage, self.model, batch, micro_batch_size).item()
        where = f"in epoch {self.progress.epoch + 1}; lower --learning_rate or check the labels"
        if not abs(loss) < float("inf"):
            raise RuntimeError(f"the loss is {loss} {where}")
        norm = accelerator.clip_grad_norm_(self.model.parameters(), args.max_gradient_norm)
        # A float16 gradient scaler skips steps with infinite or NaN gradients.
        if accelerator.scaler is None and not norm.isfinite():
            raise RuntimeError(f"the gradient's norm is {norm.item()} {where}")
        if self.routed is not None:
            longest = accelerator.gather(batch["frame_mask"].sum(1).max().reshape(1))
            self.routed.longest = int(longest.max())
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return loss

    def validate(self) -> None:
        """Score the model, record the epoch and log it."""
        args, progress, accelerator = self.args, self.progress, self.accelerator
        started = time.perf_counter()
        gather = accelerator.gather_for_metrics
        outputs, labels = _predict(self.stage, self.model, self.validation, gather)
        if not all(bool(output.isfinite().all()) for output in outputs.values()):
            raise RuntimeError(
                f"outputs of epoch {progress.epoch + 1} are not finite; lower --learning_rate"
            )
        name, scores = self.stage.score_name, self.stage.score(outputs, labels)
        progress.seconds += time.perf_counter() - started
        progress.end_epoch(scores[name], scores)
        loss = progress.history[-1].train_loss
        if accelerator.is_main_process:
            lines = [json.dumps(row.to_json()) + "\n" for row in progress.history]
            write_text(args.output / "log.jsonl", "".join(lines))
            words = "epoch %d: loss %.4f, %s %.4f"
            logger.info(words, progress.epoch, loss, name, scores[name])
        logged = {f"validation/{name}": value for name, value in scores.items()}
        accelerator.log({"train/loss": loss, **logged}, step=progress.epoch)

    def save(self) -> None:
        """Write a checkpoint."""
        save_checkpoint(self.accelerator, self.args, self.progress, self.settings)

    def keep_best(self) -> None:
        """Write the model to `best` if the last epoch is the best so far.

        Call it after the checkpoint, so that `best` always agrees with the newest checkpoint:
        a run killed in between writes `best` on resuming.
        """
        progress, accelerator = self.progress, self.accelerator
        just_ended = progress.epoch > 0 and progress.items == 0
        is_best = progress.best_epoch == progress.epoch
        if just_ended and is_best and accelerator.is_main_process:
            model = accelerator.unwrap_model(self.model)
            _save_model(self.stage, model, self.args.output / "best")

    def finish(self) -> Results:
        """Load the best weights, calibrate and score them, and write model and results."""
        stage, args = self.stage, self.args
        best = type(stage.model).from_pretrained(args.output / "best")
        best = best.to(self.accelerator.device).eval()
        results = stage.finish(
            best, lambda dataset: predict_dataset(stage, best, dataset, args), self._record(best)
        )
        write_json(args.output / "results.json", results.to_json())
        own = {f"results_{stage.name}.json": args.output / "results.json"}
        carried = {path.name: path for path in stage.carried_results}
        _save_model(stage, best, args.output / "model", {**carried, **own})
        return type(results).from_json(results.to_json())

    def _record(self, best: PreTrainedModel) -> RunResults:
        progress, accelerator = self.progress, self.accelerator
        processes, threads = accelerator.num_processes, self.args.threads
        device = accelerator.device.type.upper()
        return RunResults(
            stage=self.stage.name,
            command=command_line(self.args),
            training=Training(
                epochs=progress.epoch,
                best_epoch=progress.best_epoch,
                selected_by=self.stage.score_name,
                seconds=progress.seconds,
                processes=processes,
                precision=accelerator.mixed_precision,
                hardware=f"{processes} {device} process(es), {threads} thread(s) each",
                history=progress.history,
            ),
            parameters=sum(parameter.numel() for parameter in best.parameters()),
            versions={
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
            arguments=plain_values(self.args),
            provenance=self.stage.provenance,
            earlier=self.stage.earlier,
        )

    def _take_rates_from_arguments(self) -> None:
        """Replace learning rate and weight decay of a checkpoint by those of the arguments."""
        rate, decay = self.args.learning_rate, self.args.weight_decay
        schedule = self.scheduler.scheduler
        schedule.base_lrs = [rate] * len(schedule.base_lrs)
        for group, factor in zip(self.optimizer.param_groups, schedule.lr_lambdas, strict=True):
            group["initial_lr"], group["weight_decay"] = rate, decay
            group["lr"] = rate * factor(schedule.last_epoch)


def _make_accelerator(args: TrainArguments) -> Accelerator:
    missing = sorted(set(args.log_with) - {tracker.value for tracker in get_available_trackers()})
    if missing:
        raise ValueError(f"--log_with: {', '.join(missing)}: not a tracker that is installed here")
    check_accumulation()
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        log_with=args.log_with or None,
        project_dir=args.output,
    )
    if args.expect_processes not in (0, accelerator.num_processes):
        raise RuntimeError(
            f"expected {args.expect_processes} processes; {accelerator.num_processes} are running"
        )
    return accelerator


def _make_optimizer(model: PreTrainedModel, args: TrainArguments) -> torch.optim.AdamW:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate, decay = args.learning_rate, args.weight_decay
    if not args.strict_routing:
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    dense = cast("torch.nn.Linear", model.dense)
    routed = cast("torch.nn.Parameter", dense.weight)
    frames = model.config.num_frames
    return RoutedAdamW(parameters, routed, frames, lr=rate, weight_decay=decay)


def _make_loader(
    stage: Stage, args: TrainArguments, sampler: EpochSampler | None = None
) -> DataLoader:
    """Make the loader of training items (with a sampler) or validation items (without)."""
    training = sampler is not None
    return DataLoader(
        stage.train if training else stage.validation,
        batch_size=args.batch_size,
        sampler=sampler,
        drop_last=training,
        collate_fn=stage.train_collator if training else stage.collator,
        num_workers=args.workers,
        # A separate generator: with the global one, a resumed run would differ.
        generator=torch.Generator().manual_seed(args.seed),
    )


@torch.no_grad()
def _predict(
    stage: Stage,
    model: torch.nn.Module,
    batches: Iterable[Tensors],
    gather: Callable[[Tensors], Tensors],
) -> tuple[Tensors, Tensors]:
    """Return outputs and labels of a split on the CPU; `gather` merges the processes' items."""
    model.eval()
    outputs: list[Tensors] = []
    labels: list[Tensors] = []
    for batch in batches:
        given = {name: value for name, value in batch.items() if name.endswith("labels")}
        predicted = model(**{name: batch[name] for name in batch if name not in given})
        wanted = {name: predicted[name].float() for name in stage.output_names}
        outputs.append({name: value.cpu() for name, value in gather(wanted).items()})
        labels.append({name: value.cpu() for name, value in gather(given).items()})
    return _join(outputs), _join(labels)


def _join(parts: list[Tensors]) -> Tensors:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def predict_dataset(
    stage: Stage, model: PreTrainedModel, dataset: Dataset, args: TrainArguments
) -> tuple[Tensors, Tensors]:
    """Return outputs and labels of a data set, computed in this process alone."""
    loader = DataLoader(
        dataset, batch_size=args.batch_size, collate_fn=stage.collator, num_workers=args.workers
    )
    batches = ({name: value.to(model.device) for name, value in batch.items()} for batch in loader)
    return _predict(stage, model, batches, lambda values: values)


def _save_model(
    stage: Stage, model: PreTrainedModel, folder: Path, extra: dict[str, Path] | None = None
) -> None:
    """Write model, processor and copies of further files (by target name), atomically."""
    with replaced_folder(folder) as staging:
        for name, path in (extra or {}).items():
            shutil.copy(path, staging / name)
        model.save_pretrained(staging)
        stage.processor.save_pretrained(staging)
        if model.config.model_type == "mma":
            stage.processor.image_processor().save_pretrained(staging)
        for weights in staging.glob("*.safetensors"):
            # safetensors makes files readable only by their owner.
            shutil.copymode(staging / "config.json", weights)
