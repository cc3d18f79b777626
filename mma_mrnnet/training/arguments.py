"""TrainArguments: every setting of `train.py`, and its parser."""

import re
import shlex
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from transformers import HfArgumentParser

from mma_mrnnet.model.clip_length import LENGTH_POLICIES
from mma_mrnnet.model.configuration_mma_mrnnet import (
    ACTION_UNIT_LOSSES,
    AFFECT_TRANSFORMS,
    TEMPORAL_POOLINGS,
    MMAConfig,
    MMAMRNNetConfig,
)
from mma_mrnnet.model.labels import ACTION_UNITS, CHANNELS, check_channels
from mma_mrnnet.training.augmentation import AUGMENTATIONS
from mma_mrnnet.training.sampling import BALANCES

NO_EXTRACTOR = "--stage mrnn needs --mma: the stage-1 checkpoint that it builds on"

SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""Our names of transformers' schedules."""

CHOICES = {
    "stage": ("mma", "mrnn"),
    "schedule": tuple(SCHEDULES),
    "balance": BALANCES,
    "mixed_precision": ("no", "bf16", "fp16", None),
    "action_unit_loss": ACTION_UNIT_LOSSES,
    "temporal_pooling": TEMPORAL_POOLINGS,
    "affect_transform": AFFECT_TRANSFORMS,
    "length_policy": LENGTH_POLICIES,
}
STAGE_DEFAULTS = {
    "learning_rate": {"mma": 1e-4, "mrnn": 2e-3},
    "dropout": {"mma": 0.0, "mrnn": 0.2},
}
"""Defaults that differ between the stages."""

AT_LEAST_ONE = ("epochs", "batch_size", "threads", "items", "keep_checkpoints")
AT_LEAST_ZERO = ("micro_batch_size", "patience", "workers", "save_every", "expect_processes")

MAY_CHANGE = frozenset(
    {
        *("output", "resume", "resume_anyway", "save_every", "keep_checkpoints"),
        *("expect_processes", "workers", "patience", "cache", "log_with"),
    }
)
"""Settings that may change when a run resumes: the weights do not depend on them."""


def _option(default: Any, text: str) -> Any:
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class TrainArguments:
    """Settings of one training run; `accelerate launch train.py --help` lists them."""

    stage: str = field(
        metadata={
            "help": "mma (the extractor, on face crops) or mrnn (the recurrent part, on clips)"
        }
    )
    data: str = field(
        metadata={
            "help": "stage mma: a folder of train-*/validation-*.parquet, NAME:FOLDER of a corpus "
            "(several with commas; docs/training.md lists the names), `drawn` or `drawn:partial` "
            "(one kind of label each); stage mrnn: `simulated` or `simulated:DOMAIN`, "
            "`clips:FOLDER` (videos, or tables of features, and metadata.csv) or `hume:FOLDER` "
            "(Hume-Reaction)"
        }
    )
    output: Path = field(
        metadata={"help": "the run's folder: model/, best/, checkpoints/, results.json, log.jsonl"}
    )

    epochs: int = _option(30, "passes over the training data")
    batch_size: int = _option(
        64, "items for each step and process; a correlation loss needs at least 16"
    )
    learning_rate: float = _option(
        None, "the highest step size, after the warm-up; default: 1e-4 in stage mma, 2e-3 in mrnn"
    )
    weight_decay: float = _option(0.0, "AdamW's weight decay")
    warmup: float = _option(0.05, "share of all steps in which the learning rate rises")
    schedule: str = _option(
        "cosine", "learning rate after the warm-up: cosine or linear (both to 0), or constant"
    )
    max_gradient_norm: float = _option(5.0, "gradients are clipped to this norm")
    micro_batch_size: int = _option(
        0,
        "items that go through the network at once; a step is still one of the whole batch. 0: all",
    )
    mixed_precision: str | None = _option(
        None, "no, bf16 or fp16; default: what accelerate was launched with"
    )
    monitor: str | None = _option(
        None, "the validation score that chooses the best epoch; default: the stage's own"
    )
    patience: int = _option(
        0, "stop after this many epochs without a better validation score; 0: never"
    )
    seed: int = _option(0, "seed of everything random in the run")
    workers: int = _option(0, "additional processes that read data")
    threads: int = _option(1, "compute threads of each process; 1 is fastest if cores are shared")
    resume: bool = _option(False, "continue from the newest complete checkpoint in OUTPUT")
    resume_anyway: bool = _option(
        False, "the same, even if settings, data or the number of processes differ"
    )
    save_every: int = _option(
        0, "write a checkpoint after so many steps within an epoch too; 0: after epochs only"
    )
    keep_checkpoints: int = _option(2, "number of complete checkpoints to keep")
    expect_processes: int = _option(
        0, "refuse to run with another number of processes; 0: accept any"
    )
    log_with: list[str] = _option(
        [], "trackers that Accelerate knows, such as tensorboard, beside log.jsonl"
    )

    channels: list[str] = _option(
        list(CHANNELS),
        f"some of {', '.join(CHANNELS)}. Stage mma: the outputs that labels teach (labels of the "
        "others are hidden); stage mrnn: the parts of the affect that the GRU reads",
    )
    items: int = _option(
        2000, "stage mma on drawn faces: how many to draw for training (a fifth for validation)"
    )
    image_size: int = _option(MMAConfig.image_size, "stage mma: side of a crop in pixels")
    layer_type: str = _option("bottleneck", "stage mma: basic or bottleneck residual units")
    embedding_size: int = _option(64, "stage mma: channels of the backbone's stem")
    hidden_sizes: list[int] = _option(
        [256, 512, 1024, 2048], "stage mma: channels of the backbone's stages"
    )
    depths: list[int] = _option([3, 4, 6, 3], "stage mma: residual units of each stage")
    downsample_in_first_stage: bool = _option(
        False,
        "stage mma: halve the feature maps in the backbone's first stage too; a quarter of the "
        "arithmetic",
    )
    valence_arousal_weight: float = _option(1.0, "stage mma: weight of that objective in the loss")
    expression_weight: float = _option(1.0, "stage mma: weight of that objective in the loss")
    action_unit_weight: float = _option(1.0, "stage mma: weight of that objective in the loss")
    action_unit_loss: str = _option(
        MMAConfig.action_unit_loss,
        "stage mma: cross_entropy, or squared_error (for graded labels; in units of each unit's "
        "deviation)",
    )
    action_unit_concordance_weight: float = _option(
        0.0, "stage mma: weight of an additional 1 - mean CCC of the action units"
    )
    distribution_matching: str = _option("kl", "stage mma: kl, bce, literal or off")
    distribution_matching_weight: float = _option(
        1.0, "stage mma: weight of that objective in the loss"
    )
    consistency_weight: float = _option(
        0.0,
        "stage mma: weight of the difference between the outputs for two augmented copies of a "
        "crop; above 0, each crop comes twice in its batch",
    )
    co_annotation: str = _option(
        "off",
        "stage mma: off, soft or hard; derive expression labels from action units (hard: also the "
        "reverse)",
    )
    neutral_talkers: list[str] = _option(
        [],
        "stage mma: sources of images (values of `source`) of which training rows become neutral: "
        "those without an expression label, in which only the units of parted lips are active "
        "(25, 26, a trace of 10), since such faces talk",
    )
    action_units: list[int] = _option(
        list(ACTION_UNITS), "stage mma: FACS numbers of the units to predict, ascending"
    )
    balance: str = _option(
        "off",
        "stage mma: off (every item once an epoch), corpora (equally many items of each) or "
        "classes (equally many of each expression)",
    )
    repeat: list[str] = _option(
        [],
        "stage mma: SOURCE=N for sources of images (values of `source`) that come N times an epoch",
    )
    augment: bool = _option(True, "stage mma: change the training crops at random")
    augmentations: list[str] = _option(
        list(AUGMENTATIONS),
        f"stage mma: the ways in which crops are changed; some of {', '.join(AUGMENTATIONS)}",
    )

    mma: str | None = _option(
        None,
        "the stage-1 checkpoint (folder or repository): stage mrnn builds on it (not with tables "
        "of features); stage mma starts from its weights (default: from scratch)",
    )
    features: list[str] = _option(
        [],
        "stage mrnn on tables of features: patterns of the columns to take, such as 'AU*_r'; "
        "default: those that docs/own_data.md lists for each kind of table",
    )
    table_fps: float | None = _option(
        None,
        "stage mrnn on tables of features without times: their rows a second; default: rows are "
        "taken as they are",
    )
    targets: list[str] = _option(
        [],
        "stage mrnn on clips:FOLDER: patterns of the metadata's columns that are targets; default: "
        "all others",
    )
    ignore: list[str] = _option(
        [], "stage mrnn on clips:FOLDER: patterns of the metadata's columns that are no targets"
    )
    label_range: list[float] = _option(
        [0.0, 1.0],
        "stage mrnn on clips:FOLDER: the lowest and the highest rating, which become 0 and 1",
    )
    cache: str | None = _option(
        None, "stage mrnn on real clips: folder that keeps their affect; default: OUTPUT/affect"
    )
    clips_from: str = _option(
        "auto",
        "stage mrnn on hume:FOLDER: auto (face crops if there are any, else videos), faces, "
        "videos, or a set of features such as FAUs (feats/FAUs/<id>.csv)",
    )
    clips: list[int] = _option(
        [15806, 4657, 4604], "stage mrnn, simulated: number of clips for train, validation, test"
    )
    quiet_share: float = _option(
        0.0,
        "stage mrnn, simulated: share of clips in each split without a reaction (neutral, "
        "talking, posed grins, shouts, yawns and the like), with all labels 0",
    )
    short_share: float = _option(
        0.0,
        "stage mrnn, simulated: share of training clips of 1 to 10 s (simulated:measured: of all "
        "splits, from 1 frame)",
    )
    num_frames: int = _option(
        MMAMRNNetConfig.num_frames, "stage mrnn: T, the most frames of a clip"
    )
    length_policy: str = _option(
        "thin",
        "stage mrnn: thin (clips of more than T frames, evenly), truncate (them to their first T) "
        "or resample (every clip to T frames, short ones by repeating some)",
    )
    sampling_fps: float = _option(MMAMRNNetConfig.sampling_fps, "stage mrnn: frames a second")
    hidden_size: int = _option(96, "stage mrnn: units of the GRU")
    num_layers: int = _option(1, "stage mrnn: layers of the GRU")
    temporal_pooling: str = _option(
        "mask",
        "stage mrnn: what the dense layer reads: mask (all T outputs of the GRU, 0 in padding), "
        "padded (all T as they are), last, mean, attention, or statistics (attention, mean, first "
        "and last third, maximum and deviation)",
    )
    affect_transform: str = _option(
        "logits",
        "stage mrnn: what the GRU reads of the affect: logits (of probabilities, standardised) or "
        "none (as it is); features of tables are always standardised",
    )
    dense_size: int = _option(32, "stage mrnn: units of the dense layer")
    dropout: float = _option(
        None,
        "stage mma: on the pooled features (default 0); stage mrnn: after the dense layer (0.2)",
    )
    intensity_loss: str = _option("pearson", "stage mrnn: pearson, ccc or mse")
    quiet_weight: float | None = _option(
        None,
        "stage mrnn: take --intensity_loss over clips with a label above 0, and add it over all "
        "clips with this weight; default: over all clips only",
    )
    strict_routing: bool = _option(
        False,
        "stage mrnn: dense weights of frames beyond a step's longest clip keep every bit in that "
        "step",
    )

    def __post_init__(self) -> None:
        """Check the settings before any data are read; raise ValueError for an invalid one."""
        self.output = Path(self.output)
        self._check_choices()
        for name, defaults in STAGE_DEFAULTS.items():
            if getattr(self, name) is None:
                setattr(self, name, defaults[self.stage])
        self._check_stage()
        unknown = [kind for kind in self.augmentations if kind not in AUGMENTATIONS]
        if unknown:
            raise ValueError(
                f"--augmentations must be among {', '.join(AUGMENTATIONS)}; "
                f"got {', '.join(unknown)}"
            )
        if len(self.hidden_sizes) != len(self.depths):
            raise ValueError(
                "--hidden_sizes and --depths need one number for each stage; "
                f"got {self.hidden_sizes}, {self.depths}"
            )
        check_channels("--channels", self.channels)
        _ = self.repeats
        self._check_ranges()
        self._check_tables()

    def _check_choices(self) -> None:
        for name, accepted in CHOICES.items():
            value, names = getattr(self, name), [choice for choice in accepted if choice]
            if value not in accepted:
                raise ValueError(f"--{name} must be one of {', '.join(names)}; got {value!r}")

    def _check_stage(self) -> None:
        if self.stage == "mma" and self.strict_routing:
            raise ValueError(
                "--strict_routing is for --stage mrnn: stage 1 has no dense layer over frames"
            )
        if self.strict_routing and self.temporal_pooling != "mask":
            raise ValueError(
                "--strict_routing needs --temporal_pooling mask: only there a frame has dense "
                f"weights of its own that the mask routes; got {self.temporal_pooling!r}"
            )
        # Clips in files may be feature tables, which need no extractor; this shows on reading.
        in_files = ":" in self.data and not self.data.startswith("simulated:")
        if self.stage == "mrnn" and self.mma is None and not in_files:
            raise ValueError(NO_EXTRACTOR)
        if self.stage == "mrnn" and (len(self.clips) != 3 or min(self.clips) < 1):
            raise ValueError(
                f"--clips needs three numbers from 1 on: train, validation, test; got {self.clips}"
            )

    @property
    def repeats(self) -> dict[str, int]:
        """`repeat`, parsed; ValueError if an entry is not SOURCE=N with N from 1 on."""
        parts = [text.rpartition("=") for text in self.repeat]
        for text, (source, _, count) in zip(self.repeat, parts, strict=True):
            if not source or not re.fullmatch(r"[1-9]\d{0,3}", count, re.ASCII):
                raise ValueError(f"--repeat takes SOURCE=N, such as photos=3; got {text!r}")
        return {source: int(count) for source, _, count in parts}

    def _check_tables(self) -> None:
        if len(self.label_range) != 2 or not self.label_range[0] < self.label_range[1]:
            raise ValueError(
                f"--label_range needs the lowest and the highest rating; got {self.label_range}"
            )
        if self.table_fps is not None and not 0 < self.table_fps < float("inf"):
            raise ValueError(f"--table_fps must be a number above 0; got {self.table_fps}")

    def _check_ranges(self) -> None:
        for name in (*AT_LEAST_ONE, *AT_LEAST_ZERO):
            value, least = getattr(self, name), int(name in AT_LEAST_ONE)
            if value < least:
                raise ValueError(f"--{name} must be at least {least}; got {value}")
        for name in ("learning_rate", "max_gradient_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} must be a number above 0; got {getattr(self, name)}")
        for name in ("weight_decay", "quiet_weight"):
            if not 0 <= (getattr(self, name) or 0) < float("inf"):
                raise ValueError(f"--{name} must be a number from 0 on; got {getattr(self, name)}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed must be in [0, 2^32); got {self.seed}")
        for name in ("quiet_share", "short_share", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name} must be in [0, 1); got {getattr(self, name)}")


def parse_arguments(words: list[str] | None = None) -> TrainArguments:
    """Parse a command line into settings (None: the arguments of the process)."""
    parser = HfArgumentParser(cast("Any", TrainArguments))  # its hint is an unbound type variable
    (arguments,) = parser.parse_args_into_dataclasses(words)
    return arguments


def plain_values(args: TrainArguments) -> dict[str, Any]:
    """Return every setting as a value that JSON can hold."""
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()
    }


def command_line(args: TrainArguments) -> str:
    """Return the command that repeats a run; settings at their default are left out."""
    words = ["accelerate", "launch", "train.py"]
    for option in fields(args):
        default = option.default if option.default_factory is MISSING else option.default_factory()
        default = STAGE_DEFAULTS.get(option.name, {}).get(args.stage, default)
        value = getattr(args, option.name)
        if value != default and option.name not in ("resume", "resume_anyway"):
            values = value if isinstance(value, list) else [value]
            words += [f"--{option.name}", *map(str, values)]
    return shlex.join(words)
