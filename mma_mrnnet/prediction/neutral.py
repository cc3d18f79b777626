"""Subtract what a person's resting face shows (their own neutral) from their affect.

Off by default. There is no evidence that it improves results: no model was trained with it.
"""

import math
from dataclasses import dataclass

import numpy as np

from mma_mrnnet.model.labels import EXPRESSIONS, VALENCE_AROUSAL

REST = 0.05
"""A resting face: probability of a unit, odds of an expression against neutral (our choice)."""
AUTO_S = 2.0  # length of the `auto` stretch (our choice)
SMALLEST = 1e-6  # clips probabilities away from 0 and 1 before their logits

Neutral = tuple[float, float] | str | None
"""(start, end) in seconds of a stretch in which a person rests, `auto` for the calmest, or None."""

_NEUTRAL = EXPRESSIONS.index("neutral")  # among the expressions
_EXPRESSIONS = slice(len(VALENCE_AROUSAL), len(VALENCE_AROUSAL) + len(EXPRESSIONS))
_UNITS = slice(_EXPRESSIONS.stop, None)


class NoNeutralError(ValueError):
    """A person has no neutral stretch; the message says why."""


def check_neutral(neutral: Neutral) -> None:
    """Raise ValueError unless the value is None, `auto`, or (start, end), 0 <= start < end."""
    if neutral is None or neutral == "auto":
        return
    try:
        start, end = map(float, () if isinstance(neutral, str) else neutral)
        if 0 <= start < end < math.inf:
            return
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"neutral must be (start, end) in seconds, 0 <= start < end, or 'auto'; got {neutral!r}"
    )


def neutral_stretch(
    neutral: tuple[float, float] | str, times_s: np.ndarray, affect: np.ndarray, fps: float
) -> tuple[float, float]:
    """Return start and end in seconds of a person's neutral stretch.

    `auto` chooses the least expressive `AUTO_S` seconds with a face in every sampled frame: the
    lowest mean of the units' mean probability plus 1 - P(neutral). These need not be calm.
    `times_s` (L,) and `affect` (L, A) are of the sampled frames with the person's face, in
    order; `fps` is the sampling rate.

    Raises:
        NoNeutralError: no frame is in the stretch, or no stretch is long enough for `auto`.
    """
    if not isinstance(neutral, str):
        start_s, end_s = map(float, neutral)
        if not ((times_s >= start_s) & (times_s <= end_s)).any():
            raise NoNeutralError(
                f"no face of this person from {start_s:g} to {end_s:g} s, "
                "which is to be their neutral"
            )
        return start_s, end_s
    activity = affect[:, _UNITS].mean(1) + 1 - affect[:, _EXPRESSIONS][:, _NEUTRAL]  # (L,)
    frames = max(round(AUTO_S * fps), 1)
    levels: dict[int, float] = {}  # of each stretch without a gap, by its first frame
    for first in range(len(affect) - frames + 1):
        if times_s[first + frames - 1] - times_s[first] < (frames - 0.5) / fps:
            levels[first] = float(activity[first : first + frames].mean())
    if not levels:
        raise NoNeutralError(
            f"no {AUTO_S:g} s with a face of this person throughout: "
            "nothing to take as their neutral"
        )
    calmest = min(levels, key=lambda first: levels[first])
    return float(times_s[calmest]), float(times_s[calmest + frames - 1])


@dataclass(frozen=True, eq=False)
class OwnNeutral:
    """What a person's resting face shows beyond a face at rest.

    Valence and arousal: their mean, which becomes 0. Units, and odds of expressions against
    `neutral`: the excess of their mean logit over that of `REST`. Nothing is ever raised, since
    that would also raise the extractor's noise.

    Attributes:
        valence_arousal: (2,) to subtract.
        logits: (A - 2,) >= 0, to subtract from expressions and units before softmax and sigmoid.
    """

    valence_arousal: np.ndarray
    logits: np.ndarray

    @classmethod
    def of(cls, affect: np.ndarray) -> "OwnNeutral":
        """Measure it on (L, A) affect, L >= 1, of a person at rest."""
        affect = affect.astype(np.float64)
        level = _logits(affect).mean(0)  # (A - 2,)
        rest = np.full(level.shape, math.log(REST / (1 - REST)))
        rest[: len(EXPRESSIONS)] = math.log(REST)
        excess = np.maximum(level - rest, 0.0)
        excess[_NEUTRAL] = 0.0
        return cls(affect[:, : _EXPRESSIONS.start].mean(0), excess)

    def taken_from(self, affect: np.ndarray) -> np.ndarray:
        """Subtract it from (L, A) affect of the same person; clip valence-arousal to [-1, 1]."""
        result = affect.astype(np.float64)
        valence_arousal = result[:, : _EXPRESSIONS.start] - self.valence_arousal
        result[:, : _EXPRESSIONS.start] = np.clip(valence_arousal, -1.0, 1.0)
        factors = np.exp(-self.logits)
        expressions, units = factors[: len(EXPRESSIONS)], factors[len(EXPRESSIONS) :]
        if (expressions < 1).any():
            shares = np.clip(result[:, _EXPRESSIONS], SMALLEST, 1.0) * expressions
            result[:, _EXPRESSIONS] = shares / shares.sum(1, keepdims=True)
        share = result[:, _UNITS]
        lowered = units * share / (1 - share + units * share)
        result[:, _UNITS] = np.where(units < 1, lowered, share)
        return result.astype(np.float32)


def _logits(affect: np.ndarray) -> np.ndarray:
    """Return (L, A - 2) logits: expressions against `neutral`, units against their absence."""
    shares = np.clip(affect[:, _EXPRESSIONS.start :], SMALLEST, 1 - SMALLEST)
    expressions, units = shares[:, : len(EXPRESSIONS)], shares[:, len(EXPRESSIONS) :]
    neutral = np.repeat(expressions[:, [_NEUTRAL]], len(EXPRESSIONS), 1)
    return np.log(shares) - np.log(np.hstack([neutral, 1 - units]))
