"""A study on disk: what is compared on which data, where each run lies, and whether it is done."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mma_mrnnet.analysis.ablation.variants import Variant, all_variants
from mma_mrnnet.metrics import rounded
from mma_mrnnet.training.arguments import TrainArguments, parse_arguments, plain_values
from mma_mrnnet.training.checkpoints import write_text
from mma_mrnnet.training.clip_corpora import read_corpus

BASE = "study.json"
RUN = "run.json"
"""What a run's folder gets last: it holds the run's settings. Without it the run was cut off."""

FREE = frozenset(
    {
        "output",
        "cache",
        "seed",
        "resume",
        "resume_anyway",
        "keep_checkpoints",
        "workers",
        "save_every",
    }
)
"""Settings in which a study's later calls may differ from its first."""


@dataclass(frozen=True)
class Study:
    """Everything that the runs of a study have in common.

    Attributes:
        folder: of the study.
        base: settings of stage 2's training; every variant changes some of them.
        frames: settings of stage 1's, where the study trains extractors too; else `base.mma` is everybody's.
        transfer: `--data` words of other data that every model is tried on.
    """

    folder: Path
    base: TrainArguments
    frames: TrainArguments | None = None
    transfer: tuple[str, ...] = field(default_factory=tuple)

    @property
    def variants(self) -> list[Variant]:
        """Every variant that there is."""
        return all_variants(self.base, self.transfer)

    def run_folder(self, variant: Variant, seed: int) -> Path:
        """Where a run's files are."""
        return self.folder / "runs" / variant.name / f"seed-{seed}"

    def extractor_folder(self, variant: Variant, seed: int) -> Path:
        """Where the extractor is trained that a run builds on."""
        change = variant.extractor or {}
        name = "_".join(f"{key}-{_plain(value)}" for key, value in sorted(change.items())) or "base"
        return self.folder / "extractors" / name / f"seed-{seed}"

    def arguments(self, variant: Variant, seed: int) -> TrainArguments:
        """Stage 2's settings of one run."""
        folder = self.run_folder(variant, seed)
        mma = (
            self.base.mma
            if self.frames is None
            else str(self.extractor_folder(variant, seed) / "model")
        )
        common = {
            "seed": seed,
            "output": folder / "training",
            "mma": None if variant.pixels else mma,
            "cache": self.base.cache or str(self.folder / "affect"),
            "keep_checkpoints": 1,
        }
        return replace(self.base, **common, **variant.settings)

    def extractor_arguments(self, variant: Variant, seed: int) -> TrainArguments:
        """Stage 1's settings of the extractor behind one run."""
        if self.frames is None:
            raise ValueError("this study trains no extractors")
        folder = self.extractor_folder(variant, seed)
        return replace(
            self.frames, seed=seed, output=folder, keep_checkpoints=1, **(variant.extractor or {})
        )

    def elsewhere(self, args: TrainArguments, data: str) -> TrainArguments:
        """A run's settings for reading the test clips of other data."""
        kind = data.partition(":")[0]
        changes = {
            "data": data,
            "clips": [1, 1, args.clips[2]],
        }  # of simulated data no other split is needed
        if kind != "hume":
            changes["clips_from"] = "auto"
        return replace(args, **changes)

    def check_transfer(self) -> None:
        """Looks at the other data before hours go into training.

        Raises:
            ValueError: they cannot be read, have other targets, or are of another kind than the base's.
        """
        if not self.transfer:
            return
        base = read_corpus(self.base)
        for data in self.transfer:
            try:
                other = read_corpus(self.elsewhere(self.base, data))
            except ValueError as error:
                raise ValueError(f"--transfer {data}: {error}") from error
            if other.names != base.names:
                raise ValueError(
                    f"--transfer {data}: its targets are {other.names}; those of --data {base.names}"
                )
            if other.holds_tables != base.holds_tables:
                raise ValueError(
                    f"--transfer {data}: tables of features go with tables of features alone"
                )

    def impossible(self, variant: Variant) -> str | None:
        """Why a variant cannot be trained in this study; None where it can."""
        if variant.extractor is not None and self.frames is None:
            return "needs --frames: the data that extractors are trained on"
        if variant.pixels and self.base.data.startswith("simulated"):
            return "simulated clips have no pixels"
        try:
            self.arguments(variant, 0)
        except ValueError as error:
            return str(error)
        return None

    def is_done(self, folder: Path, args: TrainArguments) -> bool:
        """Whether a run, or an extractor, is there.

        Raises:
            ValueError: it is, with other settings.
        """
        path = folder / RUN
        if not path.is_file():
            return False
        self._refuse_other_settings(path, read_settled(path)["settings"], settled(args))
        return True

    def _refuse_other_settings(self, path: Path, found: dict, wanted: dict) -> None:
        own = set() if self.frames is None else {"mma"}  # a place in the study, which may be moved
        differing = sorted((found.keys() | wanted.keys()) - own)
        differing = [name for name in differing if found.get(name) != wanted.get(name)]
        if differing:
            pairs = "; ".join(
                f"--{name} {found.get(name)!r}, now {wanted.get(name)!r}" for name in differing
            )
            raise ValueError(f"{path}: written with other settings: {pairs}. Take another --out")

    def claim(self) -> None:
        """Writes the study's settings into its folder, or compares them with those that are there.

        Raises:
            ValueError: the folder holds another study.
        """
        settings = {
            "clips": settled(self.base),
            "frames": None if self.frames is None else settled(self.frames),
            "transfer": list(self.transfer),
            "extractor": _digest_of_weights(self.base.mma),
        }
        path = self.folder / BASE
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: a file, where the study's folder should be")
        if not path.is_file():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise ValueError(
                    f"{self.folder}: not empty, and no study that began here; take another --out"
                )
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(settings, indent=1) + "\n")
            return
        found = read_settled(path)
        if (found["frames"] is None) != (self.frames is None):
            began = "without" if found["frames"] is None else "with"
            raise ValueError(f"{path}: began {began} --frames. Take another --out")
        for part in ("clips", "frames"):
            self._refuse_other_settings(path, found[part] or {}, settings[part] or {})
        if found.get("extractor", settings["extractor"]) != settings["extractor"]:
            raise ValueError(
                f"{path}: began with other weights in --mma {self.base.mma}. Take another --out"
            )
        if found["transfer"] != settings["transfer"]:
            raise ValueError(
                f"{path}: began with --transfer {found['transfer']}; got {settings['transfer']}. Take another --out"
            )


def study_of(
    folder: Path, words: Sequence[str], frames: Sequence[str] | None, transfer: Sequence[str]
) -> Study:
    """A study from the words of its command.

    Args:
        folder: of the study.
        words: `train.py`'s words for stage 2, without `--stage` and `--output`.
        frames: the same for stage 1; None where no extractor is trained.
        transfer: `--data` words of other data.

    Raises:
        ValueError: settings that cannot be.
    """
    given = list(words)
    if frames is not None and "--mma" in given:
        raise ValueError("--mma and --frames: a study either takes an extractor or trains its own")
    if frames is not None:
        given += ["--mma", str(folder)]  # each run has its own
    base = parse_arguments(["--stage", "mrnn", "--output", str(folder), *given])
    names = [variant.name for variant in all_variants(base, transfer)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"--transfer {' '.join(transfer)}: two of them would have one name; rename a folder"
        )
    stage1 = (
        None
        if frames is None
        else parse_arguments(["--stage", "mma", "--output", str(folder), *frames])
    )
    return Study(folder, base, stage1, tuple(transfer))


def settled(args: TrainArguments) -> dict:
    """The settings that a result depends on."""
    return {name: value for name, value in plain_values(args).items() if name not in FREE}


def write_record(folder: Path, args: TrainArguments, record: dict) -> None:
    """Marks a run as done: its settings, to the last digit, and its record, rounded."""
    text = json.dumps({**rounded(record), "settings": settled(args)}, indent=1, allow_nan=False)
    write_text(folder / RUN, text + "\n")


def read_settled(path: Path) -> dict:
    """What a study, or a run, wrote of itself.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path}: damaged ({error}); remove {path.parent} and run it again"
        ) from error


def _digest_of_weights(mma: str | None) -> str | None:
    """Of an extractor in a folder; None of one that is elsewhere."""
    path = Path(mma or "") / "model.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest() if mma and path.is_file() else None


def _plain(value: object) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)
