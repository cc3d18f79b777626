"""Reads the result files of a run and applies the signatures of its stage."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

from mma_mrnnet.analysis.diagnosis import clips, course, frames
from mma_mrnnet.analysis.diagnosis.findings import Finding, Signature

RUN_FILE = "results.json"
MODEL_FILES = ("results_mma.json", "results_mrnn.json")
SIGNATURES: dict[str, dict[str, Signature]] = {
    "mma": {**course.SIGNATURES, **frames.SIGNATURES},
    "mrnn": {**course.SIGNATURES, **clips.SIGNATURES},
}
"""Of each stage what must hold, in a few words, and the signature that finds where it does not."""


@dataclass
class Diagnosis:
    """What one result file says.

    Attributes:
        file: which one.
        stage: `mma` or `mrnn`.
        findings: problems first.
        held: what was checked and holds.
        not_recorded: what could not be checked, since the run did not record what it takes.
    """

    file: Path
    stage: str
    findings: list[Finding]
    held: list[str]
    not_recorded: list[str]

    def lines(self) -> list[str]:
        """For people: a heading, two lines a finding, then what holds and what could not be checked."""
        counts = Counter(finding.severity for finding in self.findings)
        what = ", ".join(
            f"{count} {severity}{'s' * (count > 1)}" for severity, count in counts.items()
        )
        lines = [f"{self.file} (stage {self.stage}): {what or 'nothing wrong found'}"]
        for finding in self.findings:
            lines += [f"  {finding.severity:<8} {finding.what}", f"           {finding.advice}"]
        for heading, names in (
            ("holds", self.held),
            ("not checked (not recorded, or too little to judge by)", self.not_recorded),
        ):
            if names:
                lines.append(f"  {heading}: {', '.join(names)}")
        return lines

    def as_json(self) -> dict:
        """Plain values."""
        return {**asdict(self), "file": str(self.file)}


def diagnose(place: str | Path) -> list[Finding]:
    """What is wrong with a run, problems first; empty for a healthy one.

    Args:
        place: as `diagnoses` takes it.

    Raises:
        ValueError: as `diagnoses`.
    """
    return _sorted([finding for diagnosis in diagnoses(place) for finding in diagnosis.findings])


def diagnoses(place: str | Path) -> list[Diagnosis]:
    """A diagnosis of each result file of a run.

    Args:
        place: a run's folder (`results.json`), a model's folder (`results_mma.json`, `results_mrnn.json` or both), or
            such a file.

    Raises:
        ValueError: nothing of the kind is there, or a file that training did not write.
    """
    return [_diagnosis(file) for file in _result_files(Path(place))]


def write_json(path: Path, found: list[Diagnosis]) -> None:
    """A list with an object a diagnosis; written beside its place and renamed."""
    content = json.dumps([diagnosis.as_json() for diagnosis in found], indent=1, allow_nan=False)
    staging = path.with_name(f".{path.name}.tmp")
    staging.write_text(content + "\n", "utf-8")
    staging.replace(path)


def _result_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.exists():
        raise ValueError(f"{place}: no such folder or file")
    for names in ((RUN_FILE,), MODEL_FILES):
        files = [place / name for name in names if (place / name).is_file()]
        if files:
            return files
    if (place / "checkpoints").is_dir():
        raise ValueError(
            f"{place}: no {RUN_FILE} yet; the run has not ended (train with --resume to go on)"
        )
    raise ValueError(f"{place}: no results here; looked for {', '.join((RUN_FILE, *MODEL_FILES))}")


def _diagnosis(file: Path) -> Diagnosis:
    try:
        results = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not a result file that can be read ({error})") from error
    stage = results.get("stage") if isinstance(results, dict) else None
    if stage not in list(SIGNATURES):  # not in the dict itself, which a list cannot be looked up in
        raise ValueError(
            f"{file}: not the results of a training run: its stage must be mma or mrnn; got {stage!r}"
        )
    findings: list[Finding] = []
    held, not_recorded = [], []
    for name, signature in SIGNATURES[stage].items():
        try:
            found = signature(results)
        # Whoever wrote or changed the file: a place in it is missing, or holds something else than a run writes.
        except (
            KeyError,
            TypeError,
            AttributeError,
            ValueError,
            IndexError,
            ZeroDivisionError,
        ) as error:
            said = f"{type(error).__name__}: {error}"
            raise ValueError(
                f"{file}: not as training writes it, looking for `{name}` ({said})"
            ) from error
        if found is None:
            not_recorded.append(name)
        elif found:
            findings += found
        else:
            held.append(name)
    return Diagnosis(file, stage, _sorted(findings), held, not_recorded)


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: ("problem", "note").index(finding.severity))
