"""A study on disk: its settings, the folders of its runs, and which runs are done."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from mma_mrnnet.analysis.variants import QUESTIONS, Variant, list_variants
from mma_mrnnet.files import file_digest, write_json
from mma_mrnnet.metrics import rounded
from mma_mrnnet.results import Record, ResultsError
from mma_mrnnet.training.arguments import TrainArguments, parse_arguments, plain_values
from mma_mrnnet.training.clip_corpora import read_corpus

BASE = "study.json"
RUN = "run.json"
"""Written last into a run's folder; without it, the run was interrupted."""

Settings = dict[str, Any]

FREE = frozenset(
    [
        "output",
        "cache",
        "seed",
        "resume",
        "resume_anyway",
        "keep_checkpoints",
        "workers",
        "save_every",
    ]
)
"""Settings that may differ between calls for the same study."""


@dataclass(frozen=True)
class RunRecord(Record):
    """One finished run of stage 2.

    Attributes:
        seconds: wall time; for a resumed run only the last part.
        evaluated_on: `test`, or `validation` if test has no labels.
        parameters_of_stage_2: number of weights outside the extractor.
        not_tried_on: {other data: why the model could not read them}.
        settings: all settings that affect the result.
    """

    variant: str
    seed: int
    seconds: float
    labels: list[str]
    evaluated_on: str
    data: dict[str, Any]
    parameters_of_stage_2: int
    training: dict[str, Any]
    not_tried_on: dict[str, str]
    settings: Settings


@dataclass(frozen=True)
class ExtractorRecord(Record):
    """One finished training of stage 1 with its validation scores."""

    seed: int
    seconds: float
    validation: dict[str, float | None]
    settings: Settings


@dataclass(frozen=True)
class StudyRecord(Record):
    """Common settings of a study's runs: `study.json`.

    `clips` are settings of stage 2, `frames` of stage 1 (None if no extractor is trained),
    `transfer` other `--data` values, and `extractor` is a digest of the weights of `--mma`
    (None without them).
    """

    clips: Settings
    frames: Settings | None
    transfer: list[str]
    extractor: str | None = None

    def list_settings(self) -> Settings:
        """Return everything that must not change, by option."""
        frames = {f"frames {name}": value for name, value in (self.frames or {}).items()}
        others = {"transfer": self.transfer, "mma weights": self.extractor}
        return {**self.clips, **frames, **others}


@dataclass(frozen=True)
class Study:
    """The common part of all runs in a study.

    Attributes:
        base: settings of stage 2, which every variant modifies.
        frames: settings of stage 1; None if every run uses the extractor `base.mma`.
        transfer: `--data` values of other data to try every model on.
        questions: {name: description}.
        extra: variants in addition to `list_variants`.
    """

    folder: Path
    base: TrainArguments
    frames: TrainArguments | None = None
    transfer: tuple[str, ...] = ()
    questions: Mapping[str, str] = field(default_factory=lambda: QUESTIONS)
    extra: tuple[Variant, ...] = ()

    @property
    def variants(self) -> list[Variant]:
        """Every variant of the study, the full model first."""
        return list_variants(self.base, self.transfer, self.extra)

    def run_folder(self, variant: Variant, seed: int) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / variant.name / f"seed-{seed}"

    def extractor_folder(self, variant: Variant, seed: int) -> Path:
        """Return the folder of the extractor that a run reads."""
        change = variant.extractor or {}
        parts = [
            f"{key}-{'+'.join(value) if isinstance(value, list) else value}"
            for key, value in sorted(change.items())
        ]
        return self.folder / "extractors" / ("_".join(parts) or "base") / f"seed-{seed}"

    def run_arguments(self, variant: Variant, seed: int) -> TrainArguments:
        """Return stage 2's settings for one run; raise ValueError if they are incompatible."""
        mma = self.base.mma
        if self.frames is not None:
            mma = str(self.extractor_folder(variant, seed) / "model")
        common: Settings = {
            "seed": seed,
            "output": self.run_folder(variant, seed) / "training",
            "mma": mma if variant.reads_affect else None,
            "cache": self.base.cache or str(self.folder / "affect"),
            "keep_checkpoints": 1,
        }
        return replace(self.base, **common, **variant.settings)

    def extractor_arguments(self, variant: Variant, seed: int) -> TrainArguments:
        """Return stage 1's settings for a run; raise ValueError if it trains no extractor."""
        if self.frames is None:
            raise ValueError("this study trains no extractors")
        change = dict(variant.extractor or {})
        folder = self.extractor_folder(variant, seed)
        return replace(self.frames, seed=seed, output=folder, keep_checkpoints=1, **change)

    def check_transfer(self) -> None:
        """Raise ValueError, before training, if other data are unreadable or have other targets."""
        if not self.transfer:
            return
        base = read_corpus(self.base)
        for data in self.transfer:
            try:
                other = read_corpus(change_data(self.base, data))
            except ValueError as error:
                raise ValueError(f"--transfer {data}: {error}") from error
            if other.names != base.names:
                raise ValueError(
                    f"--transfer {data}: its targets are {other.names}; "
                    f"those of --data are {base.names}"
                )
            if other.holds_tables != base.holds_tables:
                raise ValueError(
                    f"--transfer {data}: tables of features go only with tables of features"
                )

    def find_obstacle(self, variant: Variant) -> str | None:
        """Return why this study cannot train a variant; None if it can."""
        if variant.extractor is not None and self.frames is None:
            return "needs --frames: the data that extractors are trained on"
        try:
            self.run_arguments(variant, 0)
        except ValueError as error:
            return str(error)
        return None

    def is_done(self, record: type[RunRecord | ExtractorRecord], args: TrainArguments) -> bool:
        """Return whether such a training is complete; raise ValueError if with other settings."""
        folder = args.output.parent if record is RunRecord else args.output
        path = folder / RUN
        if not path.is_file():
            return False
        self._refuse_other_settings(path, read_record(path, record).settings, list_settings(args))
        return True

    def claim_folder(self) -> None:
        """Write the settings into the folder; raise ValueError if it holds anything else."""
        weights = Path(self.base.mma or "") / "model.safetensors"
        wanted = StudyRecord(
            clips=list_settings(self.base),
            frames=None if self.frames is None else list_settings(self.frames),
            transfer=list(self.transfer),
            extractor=file_digest(weights) if self.base.mma and weights.is_file() else None,
        )
        path = self.folder / BASE
        if path.is_file():
            found = read_record(path, StudyRecord)
            if found.extractor is None:  # written before extractors were recorded
                wanted = replace(wanted, extractor=None)
            self._refuse_other_settings(path, found.list_settings(), wanted.list_settings())
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"{self.folder}: is a file; the study needs a folder")
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise ValueError(f"{self.folder}: is not empty and holds no study; take another --out")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, wanted.to_json())

    def _refuse_other_settings(self, path: Path, found: Settings, wanted: Settings) -> None:
        # The folder holds the extractors too, and it may be moved.
        ignored = set() if self.frames is None else {"mma"}
        pairs = [
            f"--{name} {found.get(name)!r}, now {wanted.get(name)!r}"
            for name in sorted((found.keys() | wanted.keys()) - ignored)
            if found.get(name) != wanted.get(name)
        ]
        if pairs:
            raise ValueError(
                f"{path}: written with other settings: {'; '.join(pairs)}. Take another --out"
            )


RecordT = TypeVar("RecordT", bound=Record)


def write_record(path: Path, record: RunRecord | ExtractorRecord) -> None:
    """Write a record; round floats except in settings, which are compared later."""
    content = record.to_json()
    settings = content.pop("settings")
    write_json(path, {**rounded(content), "settings": settings})


def read_record(path: Path, kind: type[RecordT]) -> RecordT:
    """Read a record of a study; raise ValueError if the file is damaged."""
    try:
        return kind.from_json(json.loads(path.read_text("utf-8")), str(path))
    except (ResultsError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: damaged ({error}); remove {path.parent} and run it again"
        ) from error


def parse_study(
    folder: Path, words: Sequence[str], frames: Sequence[str] | None, transfer: Sequence[str]
) -> Study:
    """Build a study from command-line words; raise ValueError for invalid settings.

    `words` and `frames` are `train.py` options of stage 2 (without `--stage`, `--output`) and
    stage 1 (None if no extractor is trained); `transfer` holds `--data` values.
    """
    given = list(words)
    if frames is not None and "--mma" in given:
        raise ValueError("--mma and --frames: a study either takes an extractor or trains its own")
    if frames is not None:
        given += ["--mma", str(folder)]  # replaced for each run
    base = parse_arguments(["--stage", "mrnn", "--output", str(folder), *given])
    names = [variant.name for variant in list_variants(base, transfer)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"--transfer {' '.join(transfer)}: two of them would have one name; rename a folder"
        )
    stage1 = None
    if frames is not None:
        stage1 = parse_arguments(["--stage", "mma", "--output", str(folder), *frames])
    return Study(folder, base, stage1, tuple(transfer))


def describe_variants() -> list[str]:
    """Return one line per question and variant, for `mma-mrnnet ablate --list`."""
    words = ["--stage", "mrnn", "--data", "clips:FOLDER", "--output", "x"]
    full, *variants = list_variants(parse_arguments(words), ["DATA"])
    lines = [f"{full.name:<14} {full.what}"]
    for question, asked in QUESTIONS.items():
        own = [variant for variant in variants if variant.question == question]
        lines += ["", f"{question}: {asked}"]
        lines += [f"  {variant.name:<12} {variant.what}" for variant in own]
    return lines


def change_data(args: TrainArguments, data: str) -> TrainArguments:
    """Return settings for reading the test clips of other data."""
    # Simulated data: only the test split is needed.
    changed = replace(args, data=data, clips=[1, 1, args.clips[2]])
    return changed if data.startswith("hume:") else replace(changed, clips_from="auto")


def list_settings(args: TrainArguments) -> Settings:
    """Return the settings that affect the result."""
    return {name: value for name, value in plain_values(args).items() if name not in FREE}
