"""Names and order of every output, and how "no label" is written. The one place for both."""

from collections.abc import Sequence

import torch
from torch import Tensor

EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
"""Seven basic expressions, in the order of the expression logits."""

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 15, 17, 20, 23, 24, 25, 26)
"""The default action units: the union of the expression prior's (Du, Tao & Martinez 2014, Table 1). Our choice."""

ACTION_UNIT_TITLES = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    11: "nasolabial deepener",
    12: "lip corner puller",
    14: "dimpler",
    15: "lip corner depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    24: "lip pressor",
    25: "lips part",
    26: "jaw drop",
}
"""What FACS calls them (Ekman, Friesen & Hager, 2002)."""

REACTIONS = ("Adoration", "Amusement", "Anxiety", "Disgust", "Empathic-Pain", "Fear", "Surprise")
"""The seven reactions of Hume-Reaction, in the corpus's own order and spelling."""

VALENCE_AROUSAL = ("valence", "arousal")

CHANNELS = ("valence_arousal", "expressions", "action_units")
"""The three kinds of affect, in the order of the affect vector."""

NO_CLASS = -100
"""A class id that means "not labelled". For real values and action units the mark is NaN."""

PRESENT_INTENSITY = 0.4
"""An action unit counts as present from this intensity on, 2 of 5 on the FACS scale as DISFA's users count it."""

QUIET_INTENSITY = 0.05
"""Below it, an action unit does not show at all."""

PARTED_INTENSITY = 0.15
"""Lips whose parting or jaw drop exceeds it are seen to be open."""

PRESENT_PROBABILITY = 0.5
"""An action unit is called present from this output on."""


def presence_target(intensity: Tensor) -> Tensor:
    """Probability of presence that an action unit's intensity label stands for (our choice).

    A straight ramp from 0 at intensity 0 to 1 at twice `PRESENT_INTENSITY`, so that the intensity that counts as
    present becomes `PRESENT_PROBABILITY`, and the labels 0 and 1 of a corpus without intensities stay 0 and 1.

    Args:
        intensity: any shape, in [0, 1]; NaN where unlabelled.

    Returns:
        The same shape, in [0, 1]; NaN stays NaN.
    """
    return (intensity * (PRESENT_PROBABILITY / PRESENT_INTENSITY)).clamp(0.0, 1.0)


def is_present(intensity: Tensor) -> Tensor:
    """True where an intensity label counts as present; NaN (no label) is False.

    The small tolerance keeps 0.4 stored as float32 (0.4000000059...) and as float64 on the same side.
    """
    return intensity >= PRESENT_INTENSITY - 1e-6


def neutral_talkers(intensity: Tensor, action_units: Sequence[int]) -> Tensor:
    """True where a face shows nothing but parted lips: neutral, and talking, by its action units (our choice).

    No unit reaches `QUIET_INTENSITY` but 25 and 26, one of which exceeds `PARTED_INTENSITY`, and the trace of 10 that
    comes with parted lips: at most a quarter of 25 more. Units 1, 4 and 12, brows and smiles, must be annotated.

    Args:
        intensity: (N, A) in [0, 1]; NaN where unlabelled.
        action_units: the A columns' units.

    Returns:
        (N,) bool; False everywhere where `action_units` lacks one of 1, 4, 12, 25.
    """
    place = {unit: column for column, unit in enumerate(action_units)}
    if not {1, 4, 12, 25} <= place.keys():
        return torch.zeros(len(intensity), dtype=torch.bool)
    shown = intensity.nan_to_num()  # (N, A)
    annotated = ~intensity[:, [place[unit] for unit in (1, 4, 12)]].isnan().any(1)
    others = [column for unit, column in place.items() if unit not in (10, 25, 26)]
    lips = shown[:, [place[unit] for unit in (25, 26) if unit in place]].amax(1)
    quiet = (shown[:, others] < QUIET_INTENSITY).all(1)
    if 10 in place:
        quiet &= shown[:, place[10]] <= shown[:, place[25]] / 4 + QUIET_INTENSITY
    return annotated & quiet & (lips > PARTED_INTENSITY)


def action_unit_name(number: int) -> str:
    """`AU01` for 1: zero-padded, as py-feat and OpenFace write it."""
    return f"AU{number:02d}"


def action_unit_title(number: int) -> str:
    """What FACS calls a unit, such as `lip corner puller` for 12; empty for those not in `ACTION_UNIT_TITLES`."""
    return ACTION_UNIT_TITLES.get(number, "")


def affect_names(
    action_units: Sequence[int] = ACTION_UNITS, channels: Sequence[str] = CHANNELS
) -> tuple[str, ...]:
    """Names of the affect vector's numbers: valence, arousal, expressions, action units (26 by default).

    Args:
        action_units: the extractor's.
        channels: those of `CHANNELS` whose names are wanted.
    """
    names = dict(
        zip(
            CHANNELS,
            (VALENCE_AROUSAL, EXPRESSIONS, map(action_unit_name, action_units)),
            strict=True,
        )
    )
    return tuple(name for channel in CHANNELS if channel in channels for name in names[channel])


def check_channels(setting: str, channels: Sequence[str]) -> None:
    """Raises ValueError, which names the setting, unless `channels` are some of `CHANNELS`, each once, in order."""
    if not channels or list(channels) != [channel for channel in CHANNELS if channel in channels]:
        raise ValueError(
            f"{setting} must be one or more of {', '.join(CHANNELS)}, each once and in this order; got {list(channels)}"
        )


def pack_affect(
    valence_arousal: Tensor, expression_logits: Tensor, action_unit_logits: Tensor
) -> Tensor:
    """The affect vector that stage 2 reads: values, softmax and sigmoids, always in float32.

    Args:
        valence_arousal: (..., 2) in [-1, 1].
        expression_logits: (..., 7).
        action_unit_logits: (..., A).

    Returns:
        (..., 2 + 7 + A) float32, in the order of `affect_names`.
    """
    return torch.cat(
        [
            valence_arousal.float(),
            expression_logits.float().softmax(-1),
            action_unit_logits.float().sigmoid(),
        ],
        dim=-1,
    )
