"""A person's own neutral: what their resting face already shows is taken out of their affect. Off by default.

Nothing here was shown to improve anything: no model was trained with it.
"""

import math
from dataclasses import dataclass

import numpy as np

from mma_mrnnet.model.labels import EXPRESSIONS, VALENCE_AROUSAL

REST = 0.05
"""What a resting face may show of a unit (probability) and of an expression (odds against neutral): our choice."""
AUTO_S = 2.0  # length of the stretch that `auto` looks for (our choice)
SMALLEST = 1e-6  # probabilities are kept this far from 0 and 1 where their logits are taken

Neutral = tuple[float, float] | str | None
"""(start, end) in seconds of a stretch in which a person rests, `auto` for the calmest one, or None."""

_NEUTRAL = len(VALENCE_AROUSAL) + EXPRESSIONS.index("neutral")
_FACES = slice(len(VALENCE_AROUSAL), len(VALENCE_AROUSAL) + len(EXPRESSIONS))
_UNITS = slice(_FACES.stop, None)


class NoNeutralError(ValueError):
    """A person has no stretch to calibrate by; the message says why."""


def check_neutral(neutral: Neutral) -> None:
    """Raises ValueError where it is neither None, `auto`, nor (start, end) with 0 <= start < end."""
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
    """Start and end in seconds of a person's neutral stretch.

    `auto` takes the `AUTO_S` seconds, with a face in every sampled frame, that show least: on average over the frames
    the units' mean probability plus how far the expression is from `neutral`. A clip without a calm moment has such a
    stretch too.

    Args:
        neutral: (start, end), or `auto`.
        times_s: (L,) of the sampled frames with the person's face, in time order.
        affect: (L, A) of these frames.
        fps: the rate at which they were sampled.

    Raises:
        NoNeutralError: none of these frames lies in it, or none of the clip is long enough for `auto`.
    """
    if neutral != "auto":
        start, end = map(float, neutral)
        if not ((times_s >= start) & (times_s <= end)).any():
            raise NoNeutralError(
                f"no face of this person from {start:g} to {end:g} s, which is to be their neutral"
            )
        return start, end
    shown = affect[:, _UNITS].mean(1) + 1 - affect[:, _NEUTRAL]  # (L,)
    frames = max(round(AUTO_S * fps), 1)
    best: tuple[float, int] | None = None
    for first in range(len(affect) - frames + 1):
        last = first + frames - 1
        whole = (
            times_s[last] - times_s[first] < (frames - 0.5) / fps
        )  # no sampled frame without a face in between
        level = float(shown[first : last + 1].mean())
        if whole and (best is None or level < best[0]):
            best = level, first
    if best is None:
        raise NoNeutralError(
            f"no {AUTO_S:g} s with a face of this person throughout: nothing to take as their neutral"
        )
    return float(times_s[best[1]]), float(times_s[best[1] + frames - 1])


@dataclass(frozen=True, eq=False)
class OwnNeutral:
    """What a person's resting face shows beyond a face at rest.

    Valence and arousal: their mean, which becomes 0. A unit, or an expression's odds against `neutral`: by how much
    its mean in logits is above that of `REST`. Nothing is ever added: where the resting face shows less than that,
    raising it would raise the extractor's noise with it.

    Attributes:
        valence_arousal: (2,) to be subtracted.
        logits: (A - 2,) >= 0, of expressions and units, to be subtracted before softmax and sigmoid.
    """

    valence_arousal: np.ndarray
    logits: np.ndarray

    @classmethod
    def of(cls, affect: np.ndarray) -> "OwnNeutral":
        """From the (L, A) affect, L at least 1, of a person at rest."""
        affect = affect.astype(np.float64)
        level = _logits(affect).mean(0)  # (A - 2,)
        rest = np.full(level.shape, math.log(REST / (1 - REST)))
        rest[: len(EXPRESSIONS)] = math.log(REST)
        above = np.maximum(level - rest, 0.0)
        above[EXPRESSIONS.index("neutral")] = 0.0
        return cls(affect[:, : _FACES.start].mean(0), above)

    def taken_from(self, affect: np.ndarray) -> np.ndarray:
        """(L, A) float32 affect of the same person without it; valence and arousal are kept in [-1, 1]."""
        result = affect.astype(np.float64)
        result[:, : _FACES.start] = np.clip(
            result[:, : _FACES.start] - self.valence_arousal, -1.0, 1.0
        )
        lowered = np.exp(-self.logits)
        faces, units = lowered[: len(EXPRESSIONS)], lowered[len(EXPRESSIONS) :]
        if (faces < 1).any():
            shares = np.clip(result[:, _FACES], SMALLEST, 1.0) * faces
            result[:, _FACES] = shares / shares.sum(1, keepdims=True)
        share = result[:, _UNITS]
        result[:, _UNITS] = np.where(units < 1, units * share / (1 - share + units * share), share)
        return result.astype(np.float32)


def _logits(affect: np.ndarray) -> np.ndarray:
    """(L, A - 2) logits: of expressions against `neutral`, of units against their absence."""
    shares = np.clip(affect[:, _FACES.start :], SMALLEST, 1 - SMALLEST)
    faces, units = shares[:, : len(EXPRESSIONS)], shares[:, len(EXPRESSIONS) :]
    against = np.hstack(
        [np.repeat(faces[:, [EXPRESSIONS.index("neutral")]], len(EXPRESSIONS), 1), 1 - units]
    )
    return np.log(shares) - np.log(against)
