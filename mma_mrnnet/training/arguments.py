"""TrainArguments: everything that `train.py` can be told, and its parser."""

import shlex
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from transformers import HfArgumentParser

from mma_mrnnet.model.configuration_mma_mrnnet import (
    TEMPORAL_POOLINGS,
    MMAConfig,
    MMAMRNNetConfig,
)
from mma_mrnnet.model.labels import ACTION_UNITS, CHANNELS, check_channels
from mma_mrnnet.model.video_processing_mma_mrnnet import LENGTH_POLICIES
from mma_mrnnet.training.augmentation import AUGMENTATIONS
from mma_mrnnet.training.sampling import BALANCES

NO_EXTRACTOR = "--stage mrnn needs --mma: the stage-1 checkpoint that it builds on"


def _option(text: str, default: object) -> object:
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant_with_warmup"}
"""Our names of transformers' schedules."""

CHOICES = {
    "stage": ("mma", "mrnn"),
    "schedule": tuple(SCHEDULES),
    "balance": BALANCES,
    "mixed_precision": ("no", "bf16", "fp16", None),
    "temporal_pooling": TEMPORAL_POOLINGS,
    "length_policy": LENGTH_POLICIES,
}
LEAST = {
    **dict.fromkeys(("epochs", "batch_size", "threads", "items", "keep_checkpoints"), 1),
    **dict.fromkeys(
        ("micro_batch_size", "patience", "workers", "save_every", "expect_processes"), 0
    ),
}

MAY_CHANGE = frozenset(
    {
        "output",
        "resume",
        "resume_anyway",
        "save_every",
        "keep_checkpoints",
        "expect_processes",
        "workers",
    }
    | {"patience", "cache", "log_with"}
)
"""Settings that a resumed run may have otherwise: no weight depends on them."""


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
            "help": "stage mma: a folder of train-*/validation-*.parquet, `NAME:FOLDER` of a corpus (several between "
            "commas; docs/training.md has the names), `drawn` or `drawn:partial` (one kind of label each); stage mrnn: "
            "`simulated` or `simulated:DOMAIN`, `clips:FOLDER` (videos, or tables of features, and metadata.csv) or "
            "`hume:FOLDER` (Hume-Reaction)"
        }
    )
    output: Path = field(
        metadata={"help": "the run's folder: model/, best/, checkpoints/, results.json, log.jsonl"}
    )

    epochs: int = _option("passes over the training data", 30)
    batch_size: int = _option("items a step and process; a correlation loss needs at least 16", 64)
    learning_rate: float = _option("Adam's step size at its highest, after the warm-up", 1e-4)
    weight_decay: float = _option("AdamW's decay", 0.0)
    warmup: float = _option("share of all steps with a rising learning rate", 0.05)
    schedule: str = _option(
        "of the learning rate after the warm-up: cosine or linear, both to 0, or constant", "cosine"
    )
    max_gradient_norm: float = _option("gradients are clipped to this norm", 5.0)
    micro_batch_size: int = _option(
        "items that go through the network at once; the step stays that of the whole batch. 0: all of them",
        0,
    )
    mixed_precision: str | None = _option(
        "no, bf16 or fp16; what accelerate was launched with if not given", None
    )
    monitor: str | None = _option(
        "the validation score that chooses the best epoch; the stage's own if not given", None
    )
    patience: int = _option(
        "stop after this many epochs without a better validation score; 0 never stops", 0
    )
    seed: int = _option("of everything random in the run", 0)
    workers: int = _option("processes that read data beside the training one", 0)
    threads: int = _option(
        "compute threads a process; one is the fast choice wherever cores are shared", 1
    )
    resume: bool = _option("go on from the newest complete checkpoint in the output folder", False)
    resume_anyway: bool = _option(
        "the same, even if settings, data or the number of processes differ", False
    )
    save_every: int = _option(
        "a checkpoint after so many steps within an epoch too; 0: between epochs only", 0
    )
    keep_checkpoints: int = _option("complete checkpoints that stay", 2)
    expect_processes: int = _option(
        "refuse to run with another number of processes; 0 takes any", 0
    )
    log_with: list[str] = _option(
        "trackers that Accelerate knows, such as tensorboard, beside log.jsonl", []
    )

    channels: list[str] = _option(
        f"some of {', '.join(CHANNELS)}. Stage mma: the outputs that labels teach (those of the others are hidden from "
        "training); stage mrnn: what of the affect the GRU reads",
        list(CHANNELS),
    )
    items: int = _option(
        "stage mma on drawn faces: how many to draw for training (a fifth of it for validation)",
        2000,
    )
    image_size: int = _option("stage mma: side of a crop in pixels", MMAConfig.image_size)
    layer_type: str = _option("stage mma: basic or bottleneck residual units", "bottleneck")
    embedding_size: int = _option("stage mma: channels of the backbone's stem", 64)
    hidden_sizes: list[int] = _option(
        "stage mma: channels of the backbone's stages", [256, 512, 1024, 2048]
    )
    depths: list[int] = _option("stage mma: residual units a stage", [3, 4, 6, 3])
    downsample_in_first_stage: bool = _option(
        "stage mma: halve the feature maps in the backbone's first stage too; a quarter of the arithmetic",
        False,
    )
    valence_arousal_weight: float = _option("stage mma: of that objective in the loss", 1.0)
    expression_weight: float = _option("stage mma: of that objective in the loss", 1.0)
    action_unit_weight: float = _option("stage mma: of that objective in the loss", 1.0)
    action_unit_concordance_weight: float = _option(
        "stage mma: of 1 - the units' mean CCC, beside it", 0.0
    )
    distribution_matching: str = _option("stage mma: kl, bce, literal or off", "kl")
    distribution_matching_weight: float = _option("stage mma: of that objective in the loss", 1.0)
    co_annotation: str = _option(
        "stage mma: off, soft or hard; make up expressions from action-unit labels (hard: also the reverse)",
        "off",
    )
    neutral_talkers: list[str] = _option(
        "stage mma: sources of images (values of `source`) whose training rows without an expression, in which only "
        "the units of parted lips are active (25, 26, a trace of 10), are labelled neutral: faces that talk",
        [],
    )
    action_units: list[int] = _option(
        "stage mma: FACS numbers of the units to predict, ascending", list(ACTION_UNITS)
    )
    balance: str = _option(
        "stage mma: off (every item once an epoch), corpora (as many items of each) or classes (of each expression)",
        "off",
    )
    augment: bool = _option("stage mma: change the training crops at random", True)
    augmentations: list[str] = _option(
        f"stage mma: in which ways they are changed; some of {', '.join(AUGMENTATIONS)}",
        list(AUGMENTATIONS),
    )

    mma: str | None = _option(
        "stage mrnn: the stage-1 checkpoint (folder or repository) to build on; not with tables of features",
        None,
    )
    features: list[str] = _option(
        "stage mrnn on tables of features: patterns of the columns to take, such as 'AU*_r'; if not given, those that "
        "docs/own_data.md names for each kind of table",
        [],
    )
    table_fps: float | None = _option(
        "stage mrnn on tables of features without times: their rows a second; if not given, rows are taken as they are",
        None,
    )
    targets: list[str] = _option(
        "stage mrnn on clips:FOLDER: patterns of the metadata's columns that are targets; all others if not given",
        [],
    )
    ignore: list[str] = _option(
        "stage mrnn on clips:FOLDER: patterns of the metadata's columns that are no targets", []
    )
    label_range: list[float] = _option(
        "stage mrnn on clips:FOLDER: the lowest and the highest rating, which become 0 and 1",
        [0.0, 1.0],
    )
    cache: str | None = _option(
        "stage mrnn on real clips: where their affect is kept, for later runs too; OUTPUT/affect if not given",
        None,
    )
    clips_from: str = _option(
        "stage mrnn on hume:FOLDER: auto (face crops where they are, else videos), faces, videos, or a set of features "
        "such as FAUs (feats/FAUs/<id>.csv)",
        "auto",
    )
    clips: list[int] = _option(
        "stage mrnn, simulated: clips to make for train, validation, test", [15806, 4657, 4604]
    )
    quiet_share: float = _option(
        "stage mrnn, simulated: share of clips, in each split, that are neutral or talking, all labels 0",
        0.0,
    )
    short_share: float = _option(
        "stage mrnn, simulated: share of training clips of 1 to 10 s (simulated:measured: of all splits, from 1 frame)",
        0.0,
    )
    num_frames: int = _option(
        "stage mrnn: T, the most frames a clip may have", MMAMRNNetConfig.num_frames
    )
    length_policy: str = _option(
        "stage mrnn: thin (clips of more than T frames, evenly), truncate (these to their first T) or resample (every "
        "clip to T frames, short ones by repeating some)",
        "thin",
    )
    sampling_fps: float = _option("stage mrnn: frames a second", MMAMRNNetConfig.sampling_fps)
    hidden_size: int = _option("stage mrnn: units of the GRU", 128)
    num_layers: int = _option("stage mrnn: layers of the GRU", 1)
    temporal_pooling: str = _option(
        "stage mrnn: what the dense layer reads: mask (all T outputs of the GRU, 0 where padded), padded (all T, as "
        "they are), last, mean or attention",
        "mask",
    )
    dense_size: int = _option("stage mrnn: units of the dense layer", 32)
    dropout: float = _option(
        "stage mma: on the pooled features; stage mrnn: behind the dense layer", 0.0
    )
    intensity_loss: str = _option("stage mrnn: pearson, ccc or mse", "pearson")
    strict_routing: bool = _option(
        "stage mrnn: dense weights of frames beyond a step's longest clip keep every bit in that step",
        False,
    )

    def __post_init__(self) -> None:
        """Check what no other place would check early enough.

        Raises:
            ValueError: what was wrong, what came, what is accepted.
        """
        self.output = Path(self.output)
        # Clips in files may be tables of features, which need none: that shows when they are read.
        in_files = ":" in self.data and not self.data.startswith("simulated:")
        if self.stage == "mrnn" and self.mma is None and not in_files:
            raise ValueError(NO_EXTRACTOR)
        if self.stage == "mrnn" and (len(self.clips) != 3 or min(self.clips) < 1):
            raise ValueError(
                f"--clips needs three numbers from 1 on: train, validation, test; got {self.clips}"
            )
        unknown = [kind for kind in self.augmentations if kind not in AUGMENTATIONS]
        if unknown:
            raise ValueError(
                f"--augmentations must be among {', '.join(AUGMENTATIONS)}; got {', '.join(unknown)}"
            )
        if len(self.hidden_sizes) != len(self.depths):
            raise ValueError(
                f"--hidden_sizes and --depths go stage by stage; got {self.hidden_sizes}, {self.depths}"
            )
        if self.strict_routing and self.stage != "mrnn":
            raise ValueError(
                "--strict_routing is for --stage mrnn: stage 1 has no dense layer over frames"
            )
        check_channels("--channels", self.channels)
        self._check_choices()
        if self.strict_routing and self.temporal_pooling != "mask":
            raise ValueError(
                "--strict_routing needs --temporal_pooling mask: only there a frame has dense weights of its own that "
                f"the mask routes; got {self.temporal_pooling!r}"
            )
        self._check_ranges()
        self._check_tables()

    def _check_choices(self) -> None:
        for name, accepted in CHOICES.items():
            if getattr(self, name) not in accepted:
                raise ValueError(
                    f"--{name} must be one of {', '.join(filter(None, accepted))}; got {getattr(self, name)!r}"
                )

    def _check_tables(self) -> None:
        if len(self.label_range) != 2 or not self.label_range[0] < self.label_range[1]:
            raise ValueError(
                f"--label_range needs the lowest and the highest rating; got {self.label_range}"
            )
        if self.table_fps is not None and not 0 < self.table_fps < float("inf"):
            raise ValueError(f"--table_fps must be a number above 0; got {self.table_fps}")

    def _check_ranges(self) -> None:
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}; got {getattr(self, name)}")
        for name in ("learning_rate", "max_gradient_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"--{name} must be a number above 0; got {getattr(self, name)}")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"--weight_decay must be a number from 0 on; got {self.weight_decay}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed must be in [0, 2^32); got {self.seed}")
        for name in ("quiet_share", "short_share", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name} must be in [0, 1); got {getattr(self, name)}")


def parse_arguments(words: list[str] | None = None) -> TrainArguments:
    """`TrainArguments` from the command line's words (None: the process's own)."""
    (arguments,) = HfArgumentParser(TrainArguments).parse_args_into_dataclasses(words)
    return arguments


def plain_values(args: TrainArguments) -> dict:
    """Every setting as JSON can hold it."""
    return {
        name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()
    }


def command_line(args: TrainArguments) -> str:
    """The command that repeats a run: `accelerate launch train.py` with every setting that is not the default."""
    words = ["accelerate", "launch", "train.py"]
    for option in fields(args):
        default = option.default if option.default_factory is MISSING else option.default_factory()
        value = getattr(args, option.name)
        if value != default and option.name != "resume":
            words += [
                f"--{option.name}",
                *(map(str, value) if isinstance(value, list) else [str(value)]),
            ]
    return shlex.join(words)
