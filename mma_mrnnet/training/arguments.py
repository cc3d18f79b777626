"""TrainArguments: everything that `train.py` can be told, and its parser."""

import shlex
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from transformers import HfArgumentParser

from mma_mrnnet.data.augmentation import AUGMENTATIONS
from mma_mrnnet.model.labels import ACTION_UNITS
from mma_mrnnet.training.sampling import BALANCES


def _option(text: str, default: object) -> object:
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass
class TrainArguments:
    """Settings of one training run; `accelerate launch train.py --help` lists them."""

    stage: str = field(metadata={"help": "mma (the extractor, on face crops) or mrnn (the recurrent part, on clips)"})
    data: str = field(
        metadata={
            "help": "stage mma: a folder of train-*/validation-*.parquet, `NAME:FOLDER` of a corpus (several between "
            "commas; docs/training.md has the names), or `drawn`; stage mrnn: `simulated`, `clips:FOLDER` (videos and "
            "metadata.csv) or `hume:FOLDER` (Hume-Reaction)"
        }
    )
    output: Path = field(metadata={"help": "the run's folder: model/, best/, checkpoints/, results.json, log.jsonl"})

    epochs: int = _option("passes over the training data", 30)
    batch_size: int = _option("items a step and process; a correlation loss needs at least 16", 64)
    learning_rate: float = _option("Adam's step size at its highest, after the warm-up", 1e-4)
    weight_decay: float = _option("AdamW's decay", 0.0)
    warmup: float = _option("share of all steps with a rising learning rate; it then falls along a cosine", 0.05)
    max_gradient_norm: float = _option("gradients are clipped to this norm", 5.0)
    patience: int = _option("stop after this many epochs without a better validation score; 0 never stops", 0)
    seed: int = _option("of everything random in the run", 0)
    workers: int = _option("processes that read data beside the training one", 0)
    threads: int = _option("compute threads a process; one is the fast choice wherever cores are shared", 1)
    resume: bool = _option("go on from the newest complete checkpoint in the output folder", False)
    keep_checkpoints: int = _option("complete checkpoints that stay", 2)
    expect_processes: int = _option("refuse to run with another number of processes; 0 takes any", 0)

    items: int = _option("stage mma on drawn faces: how many to draw for training (a fifth of it for validation)", 2000)
    image_size: int = _option("stage mma: side of a crop in pixels", 112)
    layer_type: str = _option("stage mma: basic or bottleneck residual units", "bottleneck")
    embedding_size: int = _option("stage mma: channels of the backbone's stem", 64)
    hidden_sizes: list[int] = _option("stage mma: channels of the backbone's stages", [256, 512, 1024, 2048])
    depths: list[int] = _option("stage mma: residual units a stage", [3, 4, 6, 3])
    distribution_matching: str = _option("stage mma: kl, bce, literal or off", "kl")
    co_annotation: str = _option(
        "stage mma: off, soft or hard; make up expressions from action-unit labels (hard: also the reverse)", "off"
    )
    action_units: list[int] = _option("stage mma: FACS numbers of the units to predict, ascending", list(ACTION_UNITS))
    balance: str = _option(
        "stage mma: off (every item once an epoch), corpora (as many items of each) or classes (of each expression)",
        "off",
    )
    augment: bool = _option("stage mma: change the training crops at random", True)
    augmentations: list[str] = _option(
        f"stage mma: in which ways they are changed; some of {', '.join(AUGMENTATIONS)}", list(AUGMENTATIONS)
    )

    mma: str | None = _option("stage mrnn: the stage-1 checkpoint (folder or repository) to build on", None)
    cache: str | None = _option(
        "stage mrnn on real clips: where their affect is kept, for later runs too; OUTPUT/affect if not given", None
    )
    clips: list[int] = _option("stage mrnn, simulated: clips to make for train, validation, test", [15806, 4657, 4604])
    quiet_share: float = _option(
        "stage mrnn, simulated: share of clips, in each split, that are neutral or talking, all labels 0", 0.0
    )
    short_share: float = _option("stage mrnn, simulated: share of training clips of 1 to 10 s", 0.0)
    num_frames: int = _option("stage mrnn: T, the most frames a clip may have", 30)
    sampling_fps: float = _option("stage mrnn: frames a second", 2.0)
    hidden_size: int = _option("stage mrnn: units of the GRU", 128)
    num_layers: int = _option("stage mrnn: layers of the GRU", 1)
    dense_size: int = _option("stage mrnn: units of the dense layer", 32)
    dropout: float = _option("stage mma: on the pooled features; stage mrnn: behind the dense layer", 0.0)
    intensity_loss: str = _option("stage mrnn: pearson, ccc or mse", "pearson")

    def _check_mixing(self) -> None:
        if self.balance not in BALANCES:
            raise ValueError(f"--balance must be one of {', '.join(BALANCES)}; got {self.balance!r}")
        unknown = [kind for kind in self.augmentations if kind not in AUGMENTATIONS]
        if unknown:
            raise ValueError(f"--augmentations must be among {', '.join(AUGMENTATIONS)}; got {', '.join(unknown)}")

    def __post_init__(self) -> None:
        """Check what no other place would check early enough.

        Raises:
            ValueError: what was wrong, what came, what is accepted.
        """
        self.output = Path(self.output)
        if self.stage not in ("mma", "mrnn"):
            raise ValueError(f"--stage must be mma or mrnn; got {self.stage!r}")
        if self.stage == "mrnn" and self.mma is None:
            raise ValueError("--stage mrnn needs --mma: the stage-1 checkpoint that it builds on")
        if self.stage == "mrnn" and (len(self.clips) != 3 or min(self.clips) < 1):
            raise ValueError(f"--clips needs three numbers from 1 on: train, validation, test; got {self.clips}")
        self._check_mixing()
        if len(self.hidden_sizes) != len(self.depths):
            raise ValueError(f"--hidden_sizes and --depths go stage by stage; got {self.hidden_sizes}, {self.depths}")
        for name in ("epochs", "batch_size", "threads", "items", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name} must be at least 1; got {getattr(self, name)}")
        for name in ("quiet_share", "short_share", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"--{name} must be in [0, 1); got {getattr(self, name)}")


def parse_arguments(words: list[str] | None = None) -> TrainArguments:
    """`TrainArguments` from the command line's words (None: the process's own)."""
    (arguments,) = HfArgumentParser(TrainArguments).parse_args_into_dataclasses(words)
    return arguments


def command_line(args: TrainArguments) -> str:
    """The command that repeats a run: `accelerate launch train.py` with every setting that is not the default."""
    words = ["accelerate", "launch", "train.py"]
    for option in fields(args):
        default = option.default if option.default_factory is MISSING else option.default_factory()
        value = getattr(args, option.name)
        if value != default and option.name != "resume":
            words += [f"--{option.name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return shlex.join(words)
