"""`mma-mrnnet diagnose`: read the result files of a run and apply the checks of its stage."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mma_mrnnet.analysis.findings import (
    CLIP_SIGNATURES,
    FRAME_SIGNATURES,
    RUN_SIGNATURES,
    Finding,
)
from mma_mrnnet.results import MMAResults, MRNNResults, read_results

RUN_FILE = "results.json"
MODEL_FILES = (MMAResults.name_of_file, MRNNResults.name_of_file)

SIGNATURES: Mapping[str, Mapping[str, Any]] = {
    "mma": {**RUN_SIGNATURES, **FRAME_SIGNATURES},
    "mrnn": {**RUN_SIGNATURES, **CLIP_SIGNATURES},
}
"""Checks of each stage: what must hold -> the function that finds violations."""


@dataclass
class Diagnosis:
    """The diagnosis of one result file; `findings` lists problems first.

    `held` names checks that passed, `not_recorded` those that need data the run did not
    record.
    """

    file: Path
    stage: str
    findings: list[Finding]
    held: list[str]
    not_recorded: list[str]

    def describe(self) -> list[str]:
        """Return lines: a heading, two lines per finding, what holds, what is unknown."""
        counts = Counter(finding.severity for finding in self.findings)
        parts = [f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items()]
        heading = ", ".join(parts) or "nothing wrong found"
        lines = [f"{self.file} (stage {self.stage}): {heading}"]
        for finding in self.findings:
            lines += [f"  {finding.severity:<8} {finding.what}", f"           {finding.advice}"]
        if self.held:
            lines.append(f"  holds: {', '.join(self.held)}")
        if self.not_recorded:
            unknown = ", ".join(self.not_recorded)
            lines.append(f"  not checked (not recorded, or too little to judge by): {unknown}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "file": str(self.file)}


def diagnose(place: str | Path) -> list[Finding]:
    """Return the findings of a run, problems first; arguments and errors as `diagnose_files`."""
    return _sort([finding for one in diagnose_files(place) for finding in one.findings])


def diagnose_files(place: str | Path) -> list[Diagnosis]:
    """Diagnose each result file of a run.

    `place` is a run's folder (`results.json`), a model's folder (`results_mma.json`,
    `results_mrnn.json` or both), or such a file; anything else raises ValueError.
    """
    return [_diagnose_file(file) for file in _find_files(Path(place))]


def _find_files(place: Path) -> list[Path]:
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


def _diagnose_file(file: Path) -> Diagnosis:
    results = read_results(file)
    diagnosis = Diagnosis(file, results.stage, [], [], [])
    for name, signature in SIGNATURES[results.stage].items():
        try:
            found = signature(results)
        # The types are right, but values contradict each other or an argument is missing.
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ValueError(
                f"{file}: not as training writes it, looking for `{name}` "
                f"({type(error).__name__}: {error})"
            ) from error
        if found is None:
            diagnosis.not_recorded.append(name)
        elif found:
            diagnosis.findings += found
        else:
            diagnosis.held.append(name)
    diagnosis.findings = _sort(diagnosis.findings)
    return diagnosis


def _sort(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: ("problem", "note").index(finding.severity))
