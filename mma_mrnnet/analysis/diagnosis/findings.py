"""Finding, and the statistics and words that all signatures share.

A signature is a function: results of a run -> findings, none where all is well, or None where the run did not record
what it would have to look at. Thresholds are our choice unless they say otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

SHOWN = 8  # names in one sentence; the numbers hold all
ERRORS = (
    2.0  # standard errors that a number must lie off before we speak of it: 1 in 20 by chance alone
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a run, or worth knowing.

    Attributes:
        severity: `problem` (the model should not be used before it is dealt with) or `note`.
        what: a sentence with the numbers that matter.
        numbers: the same and the rest, by name.
        advice: one sentence of what to try.
    """

    severity: str
    what: str
    numbers: dict[str, float] = field(default_factory=dict)
    advice: str = ""


Signature = Callable[[dict], list[Finding] | None]


def problem(what: str, numbers: dict[str, float], advice: str) -> list[Finding]:
    """One finding that should be dealt with."""
    return [Finding("problem", what, numbers, advice)]


def note(what: str, numbers: dict[str, float], advice: str) -> list[Finding]:
    """One finding worth knowing."""
    return [Finding("note", what, numbers, advice)]


def at(results: dict, *keys: str) -> dict | None:
    """What lies under the keys, None where one of them is missing: a fact that was not recorded."""
    found: dict | None = results
    for key in keys:
        found = None if found is None else found.get(key)
    return found


def standard_error(count: int) -> float:
    """Of a correlation that is 0 in truth: 1 / sqrt(n)."""
    return 1 / math.sqrt(max(count, 1))


def errors_apart(one: float, count: int, other: float, other_count: int) -> float:
    """How many standard errors the first correlation lies above the second, by Fisher's z; 0 with fewer than 4 clips.

    For a mean over targets too, which varies less than one target's: it errs on the silent side.
    """
    if count <= 3 or other_count <= 3:
        return 0.0
    limit = 0.999_999  # of 1 the z is infinite
    first, second = (math.atanh(max(-limit, min(limit, value))) for value in (one, other))
    return (first - second) / math.sqrt(1 / (count - 3) + 1 / (other_count - 3))


def listed(parts: list[str]) -> str:
    """The parts between commas; only the first ones where there are many."""
    more = len(parts) - SHOWN
    return ", ".join(parts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def said(what: str, numbers: dict[str, float], form: str = ".3f") -> str:
    """`what`, then each name with its number."""
    return f"{what}: {listed([f'{name} {value:{form}}' for name, value in numbers.items()])}"
