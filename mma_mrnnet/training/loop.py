"""fit(stage, args): the one Accelerate loop. Train, evaluate, keep the best, checkpoint, resume."""

import json
import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
import transformers
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import set_seed
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import PreTrainedModel, get_scheduler

from mma_mrnnet.files import replaced_folder
from mma_mrnnet.metrics import rounded
from mma_mrnnet.training.arguments import SCHEDULES, TrainArguments, command_line, plain_values
from mma_mrnnet.training.checkpoints import (
    Progress,
    resume,
    save_checkpoint,
    settings_of,
    write_text,
)
from mma_mrnnet.training.gradients import backward
from mma_mrnnet.training.routing import RoutedAdamW
from mma_mrnnet.training.sampling import EpochSampler
from mma_mrnnet.training.stages import Stage, Tensors

logger = logging.getLogger(__name__)


def fit(stage: Stage, args: TrainArguments) -> dict:
    """Trains a stage and leaves the best model, calibrated and scored, in `args.output / "model"`.

    With several processes or micro-batches each objective is that of the whole update, as one process would compute
    it; batch norm in training mode sees its own process's share.

    Args:
        stage: from `mma_stage` or `mrnn_stage`.
        args: the run's settings.

    Returns:
        The content of `results.json`; empty in all processes but the main one.

    Raises:
        ValueError: a tracker that is not installed.
        RuntimeError: started with another number of processes than `expect_processes`, without a batch to train on,
            anew in a folder that holds another run's checkpoints, or resumed with other settings than it began with.
    """
    torch.set_num_threads(args.threads)
    run = _Run(stage, args)
    progress = run.progress
    while progress.epoch < args.epochs and not _out_of_patience(progress, args):
        run.train_epoch()
        run.validate()
        save_checkpoint(run.accelerator, args, progress, run.settings)
        run.keep_best()
    run.accelerator.wait_for_everyone()
    results: dict = {}
    if run.accelerator.is_main_process:
        results = _finish(run)
    run.accelerator.end_training()
    return results


class _Run:
    """Everything of a run that is alive at once: what Accelerate prepared, and how far it is."""

    def __init__(self, stage: Stage, args: TrainArguments) -> None:
        self.stage, self.args, self.progress = stage, args, Progress()
        self.accelerator = accelerator = _accelerator(args)
        set_seed(args.seed, device_specific=True)
        train, validation = (
            _loader(stage, args, training=True),
            _loader(stage, args, training=False),
        )
        self.sampler: EpochSampler = train.sampler
        # A last round that not all could join is dropped.
        steps = args.epochs * (len(train) // accelerator.num_processes)
        if steps == 0:
            raise RuntimeError(
                f"{len(self.sampler)} training items do not fill one batch of {args.batch_size} "
                f"in each of {accelerator.num_processes} processes"
            )
        optimizer = _optimizer(stage.model, args)
        self.routed = optimizer if args.strict_routing else None
        # Accelerate steps a prepared scheduler once for each process.
        warmup, total = (
            number * accelerator.num_processes for number in (int(args.warmup * steps), steps)
        )
        scheduler = get_scheduler(SCHEDULES[args.schedule], optimizer, warmup, total)
        self.model, self.optimizer, self.train, self.validation, self.scheduler = (
            accelerator.prepare(stage.model, optimizer, train, validation, scheduler)
        )
        accelerator.register_for_checkpointing(self.progress)
        self.settings = settings_of(accelerator, args, stage.fingerprint)
        if resume(accelerator, args, self.settings):
            self._take_rates_from_arguments()
            self.keep_best()
        if args.log_with:
            settings = {
                name: value
                for name, value in plain_values(args).items()
                if not isinstance(value, list)
            }
            accelerator.init_trackers(
                "mma_mrnnet", config={name: value or 0 for name, value in settings.items()}
            )

    def train_epoch(self) -> None:
        """The rest of the epoch that `progress` stands in."""
        args, progress, accelerator = self.args, self.progress, self.accelerator
        started = time.perf_counter()
        self.stage.begin_epoch(progress.epoch)
        self.train.set_epoch(progress.epoch)
        self.sampler.start = progress.items
        self.train.generator.manual_seed(
            args.seed + progress.epoch
        )  # --workers take their seeds from it
        self.model.train()
        of_update = args.batch_size * accelerator.num_processes
        bar = tqdm(
            self.train,
            desc=f"epoch {progress.epoch + 1}/{args.epochs}",
            initial=progress.items // of_update,
            total=len(self.sampler) // of_update,
            # A program that wants no warnings wants no bar: several runs at once would write theirs over each other.
            disable=not (accelerator.is_main_process and logger.isEnabledFor(logging.WARNING)),
            mininterval=5,
        )
        for batch in bar:
            progress.loss_total += self._update(batch)
            progress.updates += 1
            progress.items += of_update
            if args.save_every and progress.updates % args.save_every == 0:
                progress.seconds += time.perf_counter() - started
                started = time.perf_counter()
                save_checkpoint(accelerator, args, progress, self.settings)
        progress.seconds += time.perf_counter() - started

    def _update(self, batch: Tensors) -> float:
        """One step of the optimiser; the objective before it."""
        args, accelerator = self.args, self.accelerator
        micro_batch_size = args.micro_batch_size if args.micro_batch_size < args.batch_size else 0
        loss = backward(accelerator, self.stage, self.model, batch, micro_batch_size).item()
        where = f"in epoch {self.progress.epoch + 1}; lower --learning_rate or check the labels"
        if not abs(loss) < float("inf"):
            raise RuntimeError(f"the loss is {loss} {where}")
        norm = accelerator.clip_grad_norm_(self.model.parameters(), args.max_gradient_norm)
        if (
            accelerator.scaler is None and not norm.isfinite()
        ):  # a scaler of float16 gradients skips such a step
            raise RuntimeError(f"the gradient's norm is {norm.item()} {where}")
        if self.routed is not None:
            longest = accelerator.gather(batch["frame_mask"].sum(1).max().reshape(1))
            self.routed.longest = int(longest.max())
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return loss

    def validate(self) -> None:
        """Scores the model."""
        args, progress, accelerator = self.args, self.progress, self.accelerator
        started = time.perf_counter()
        outputs, labels = _predict(
            self.stage, self.model, self.validation, accelerator.gather_for_metrics
        )
        if not all(bool(output.isfinite().all()) for output in outputs.values()):
            raise RuntimeError(
                f"outputs of epoch {progress.epoch + 1} are not finite; lower --learning_rate"
            )
        scores = self.stage.score(outputs, labels)
        progress.seconds += time.perf_counter() - started
        progress.end_epoch(scores[self.stage.score_name], scores)
        row, name = progress.history[-1], self.stage.score_name
        if accelerator.is_main_process:
            write_text(
                args.output / "log.jsonl",
                "".join(json.dumps(row) + "\n" for row in progress.history),
            )
            logger.info(
                "epoch %d: loss %.4f, %s %.4f",
                progress.epoch,
                row["train_loss"],
                name,
                scores[name],
            )
        logged = {f"validation/{name}": value for name, value in scores.items()}
        accelerator.log({"train/loss": row["train_loss"], **logged}, step=progress.epoch)

    def keep_best(self) -> None:
        """Writes the model where the epoch that just ended is the best so far.

        Only after its checkpoint: a run that is killed in between writes it when it resumes, from that checkpoint, so
        that `best` is never another epoch's than the newest checkpoint says.
        """
        ended = self.progress.epoch > 0 and self.progress.items == 0
        if (
            ended
            and self.progress.best_epoch == self.progress.epoch
            and self.accelerator.is_main_process
        ):
            _save_model(
                self.stage, self.accelerator.unwrap_model(self.model), self.args.output / "best"
            )

    def _take_rates_from_arguments(self) -> None:
        """What a checkpoint brings along of learning rate and decay gives way to the arguments, if these differ."""
        schedule = self.scheduler.scheduler
        schedule.base_lrs = [self.args.learning_rate] * len(schedule.base_lrs)
        for group, factor in zip(self.optimizer.param_groups, schedule.lr_lambdas, strict=True):
            group["initial_lr"], group["weight_decay"] = (
                self.args.learning_rate,
                self.args.weight_decay,
            )
            group["lr"] = self.args.learning_rate * factor(schedule.last_epoch)


def _accelerator(args: TrainArguments) -> Accelerator:
    missing = sorted(set(args.log_with) - {tracker.value for tracker in get_available_trackers()})
    if missing:
        raise ValueError(f"--log_with: {', '.join(missing)}: not a tracker that is installed here")
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


def _optimizer(model: PreTrainedModel, args: TrainArguments) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    settings = {"lr": args.learning_rate, "weight_decay": args.weight_decay}
    if args.strict_routing:
        return RoutedAdamW(parameters, model.dense.weight, model.config.num_frames, **settings)
    return torch.optim.AdamW(parameters, **settings)


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


@torch.no_grad()
def _predict(
    stage: Stage,
    model: torch.nn.Module,
    batches: Iterable[Tensors],
    gather: Callable[[Tensors], Tensors],
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
    stage: Stage, model: PreTrainedModel, dataset: torch.utils.data.Dataset, args: TrainArguments
) -> tuple[Tensors, Tensors]:
    """Outputs and labels of a data set, in this process alone; as `Stage.score` takes them."""
    loader = DataLoader(
        dataset, batch_size=args.batch_size, collate_fn=stage.collator, num_workers=args.workers
    )
    batches = ({name: value.to(model.device) for name, value in batch.items()} for batch in loader)
    return _predict(stage, model, batches, lambda values: values)


def _out_of_patience(progress: Progress, args: TrainArguments) -> bool:
    return args.patience > 0 and progress.epoch - progress.best_epoch >= args.patience


def _save_model(
    stage: Stage, model: PreTrainedModel, folder: Path, extra: dict[str, Path] | None = None
) -> None:
    """Writes model, processor and further files (name in the folder: where from), all of it or nothing."""
    with replaced_folder(folder) as staging:
        for name, path in (extra or {}).items():
            shutil.copy(path, staging / name)
        model.save_pretrained(staging)
        stage.processor.save_pretrained(staging)
        if model.config.model_type == "mma":
            stage.processor.image_processor().save_pretrained(staging)
        for weights in staging.glob("*.safetensors"):
            shutil.copymode(
                staging / "config.json", weights
            )  # safetensors lets nobody but the owner read them


def _finish(run: _Run) -> dict:
    """Reloads the best weights, lets the stage calibrate and report, and writes model and results."""
    stage, args, progress, accelerator = run.stage, run.args, run.progress, run.accelerator
    device, processes = accelerator.device, accelerator.num_processes
    best = type(stage.model).from_pretrained(args.output / "best").to(device).eval()
    report = stage.finish(best, lambda dataset: predict_dataset(stage, best, dataset, args))
    description = dict(stage.description)
    provenance = description.pop("provenance", [])
    report = {
        "stage": stage.name,
        "command": command_line(args),
        "data": description,
        "provenance": provenance,
        "training": {
            "epochs": progress.epoch,
            "best_epoch": progress.best_epoch,
            "selected_by": stage.score_name,
            "seconds": progress.seconds,
            "processes": processes,
            "precision": accelerator.mixed_precision,
            "hardware": f"{processes} {device.type.upper()} process(es), {args.threads} thread(s) each",
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
    results = {
        "arguments": plain_values(args),
        **rounded(report),
    }  # the arguments to the last digit
    write_text(args.output / "results.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    own = {f"results_{stage.name}.json": args.output / "results.json"}
    carried = {path.name: path for path in stage.carried_results}
    _save_model(stage, best, args.output / "model", {**carried, **own})
    return results
