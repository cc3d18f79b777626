"""Names and order of all outputs, and the values that mean "no label"."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the names alone must not cost PyTorch's import
    from torch import Tensor

EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
"""Seven basic expressions, in the order of the expression logits."""

ACTION_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 15, 17, 20, 23, 24, 25, 26)
"""The default action units (our choice): those of the expression prior, see `priors`."""

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
"""The class id of an image without a label. Real values and action units have NaN instead."""

PRESENT_INTENSITY = 0.4
"""Smallest intensity of an action unit that counts as present: 2 of 5 on the FACS scale."""

QUIET_INTENSITY = 0.05
"""An action unit below this intensity does not show."""

PARTED_INTENSITY = 0.15
"""Lips are seen to be open if AU25 or AU26 exceeds this intensity."""

WIDE_OPEN_INTENSITY = 0.5
"""Lips further open than this gasp or yawn; they do not talk."""

PRESENT_PROBABILITY = 0.5
"""Smallest output for which an action unit is called present."""


def presence_target(intensity: "Tensor") -> "Tensor":
    """Convert intensities of action units in [0, 1] to probabilities of presence (our choice).

    A linear ramp from 0 at intensity 0 to 1 at twice `PRESENT_INTENSITY`, which itself
    maps to `PRESENT_PROBABILITY`. Binary labels stay 0 and 1; NaN (unlabelled) stays NaN.
    """
    return (intensity * (PRESENT_PROBABILITY / PRESENT_INTENSITY)).clamp(0.0, 1.0)


def is_present(intensity: "Tensor") -> "Tensor":
    """Return a mask of the intensities that count as present; False for NaN.

    A small tolerance makes 0.4 present in both float32 and float64.
    """
    return intensity >= PRESENT_INTENSITY - 1e-6


def neutral_talkers(intensity: "Tensor", action_units: Sequence[int]) -> "Tensor":
    """Return a mask (N,) of faces that show only parted lips, as in calm speech (our choice).

    AU25 or AU26 exceeds `PARTED_INTENSITY`, neither exceeds `WIDE_OPEN_INTENSITY`, and every
    other unit is below `QUIET_INTENSITY`. AU10 may be higher by a quarter of AU25, since
    parted lips raise it. AU1, 4 and 12 (brows and smile) must be annotated: the mask is False
    for NaN, and everywhere if `action_units` lacks 1, 4, 12 or 25.

    `intensity` is (N, A) in [0, 1], NaN if unlabelled; `action_units` names its columns.
    """
    place = {unit: column for column, unit in enumerate(action_units)}
    if not {1, 4, 12, 25} <= place.keys():
        return intensity.new_zeros(len(intensity)).bool()
    shown = intensity.nan_to_num()  # (N, A)
    annotated = ~intensity[:, [place[unit] for unit in (1, 4, 12)]].isnan().any(1)
    others = [column for unit, column in place.items() if unit not in (10, 25, 26)]
    lips = shown[:, [place[unit] for unit in (25, 26) if unit in place]].amax(1)
    quiet = (shown[:, others] < QUIET_INTENSITY).all(1)
    if 10 in place:
        quiet &= shown[:, place[10]] <= shown[:, place[25]] / 4 + QUIET_INTENSITY
    talks = (lips > PARTED_INTENSITY) & (lips <= WIDE_OPEN_INTENSITY)
    return annotated & quiet & talks


def action_unit_name(number: int) -> str:
    """Return the name of a unit in the style of py-feat and OpenFace: `AU01` for 1."""
    return f"AU{number:02d}"


def action_unit_title(number: int) -> str:
    """Return the FACS name of a unit (12: `lip corner puller`); empty if unknown."""
    return ACTION_UNIT_TITLES.get(number, "")


def affect_names(
    action_units: Sequence[int] = ACTION_UNITS, channels: Sequence[str] = CHANNELS
) -> tuple[str, ...]:
    """Return the names of the affect vector, for the given `channels`.

    Order: valence, arousal, expressions, action units; 26 names by default.
    """
    units = tuple(map(action_unit_name, action_units))
    names = dict(zip(CHANNELS, (VALENCE_AROUSAL, EXPRESSIONS, units), strict=True))
    return tuple(name for channel in CHANNELS if channel in channels for name in names[channel])


def check_channels(setting: str, channels: Sequence[str]) -> None:
    """Raise ValueError if `channels` are not some of `CHANNELS`, each once, in their order."""
    if not channels or list(channels) != [channel for channel in CHANNELS if channel in channels]:
        raise ValueError(
            f"{setting} must be one or more of {', '.join(CHANNELS)}, each once and in this order; "
            f"got {list(channels)}"
        )


def pack_affect(
    valence_arousal: "Tensor", expression_logits: "Tensor", action_unit_logits: "Tensor"
) -> "Tensor":
    """Build the affect vector of stage 2: (..., 2 + 7 + A) float32, ordered as `affect_names`.

    Takes valence-arousal (..., 2) in [-1, 1] and logits (..., 7) and (..., A).
    """
    import torch

    return torch.cat(
        [
            valence_arousal.float(),
            expression_logits.float().softmax(-1),
            action_unit_logits.float().sigmoid(),
        ],
        dim=-1,
    )


def caveats(*, simulated: bool, relative: bool, calibrated: bool) -> list[str]:
    """Return the sentences that must be shown with a model's intensities.

    `simulated`: the targets came from a simulator. `relative`: labels are relative within
    a clip. `calibrated`: outputs of different targets share one scale.
    """
    notes = []
    if simulated:
        notes.append("learnt from a simulator, not from people's reports")
    if relative:
        notes.append("relative within the clip")
    if not calibrated:
        notes.append("not calibrated: targets do not compare")
    return notes
