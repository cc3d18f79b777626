"""How simulated faces show reactions: people, displays over time, speech, rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, REACTIONS
from mma_mrnnet.model.priors import ACTION_UNIT_PRIOR
from mma_mrnnet.synthetic.extractor_noise import (
    Array,
    ExtractorNoise,
    combine_causes,
    find_columns,
    sample_autoregressive,
    sample_bias,
)

LONGEST_S = 15.0  # longest clip; the longest of Hume-Reaction are 14.98 s

ASSOCIATIONS: dict[str, dict[int, float]] = {
    "Adoration": {6: 0.7, 12: 1.0, 25: 0.15},  # our choice: a soft, slow smile; none published
    "Amusement": {6: 1.0, 7: 1.0, 12: 1.0, 25: 1.0, 26: 1.0},  # Keltner et al. 2019, Table 2
    # Our choice: a weak fear with a closed jaw; no display is published.
    "Anxiety": {1: 0.8, 2: 0.4, 4: 0.8, 5: 0.3, 20: 0.5, 23: 0.15, 24: 0.5},
    "Disgust": ACTION_UNIT_PRIOR["disgust"],  # Du et al. 2014, Table 1
    # 1, 17, 24: sympathy in Keltner et al. 2019, Table 2; the others, for pain and sadness, are
    # our choice.
    "Empathic-Pain": {
        1: 1.0,
        17: 1.0,
        24: 1.0,
        4: 0.6,
        6: 0.3,
        7: 0.4,
        9: 0.2,
        11: 0.25,
        15: 0.4,
        23: 0.15,
    },
    "Fear": ACTION_UNIT_PRIOR["fear"],  # Du et al. 2014, Table 1
    "Surprise": ACTION_UNIT_PRIOR["surprise"],  # Du et al. 2014, Table 1
}
"""Action units of each reaction: 1 if part of the display, else the share of people who show it.

Du, Tao & Martinez, PNAS 111(15), 2014; Keltner, Sauter, Tracy & Cowen, J. Nonverbal Behavior
43, 2019.
"""

NEAREST_EXPRESSIONS: dict[str, dict[str, float]] = {
    "Adoration": {"happiness": 0.8},
    "Amusement": {"happiness": 1.0},
    "Anxiety": {"fear": 0.6, "sadness": 0.1},
    "Disgust": {"disgust": 0.9, "anger": 0.1},
    "Empathic-Pain": {"sadness": 0.6, "disgust": 0.15, "fear": 0.15},
    "Fear": {"fear": 1.0},
    "Surprise": {"surprise": 1.0},
}
"""Share of basic expressions in a full reaction; neutral takes the rest. Our choice."""

CIRCUMPLEX: dict[str, tuple[float, float]] = {
    "Adoration": (0.60, 0.05),
    "Amusement": (0.80, 0.50),
    "Anxiety": (-0.45, 0.45),
    "Disgust": (-0.65, 0.35),
    "Empathic-Pain": (-0.55, 0.05),
    "Fear": (-0.60, 0.80),
    "Surprise": (0.10, 0.85),
}
"""Valence and arousal of each full reaction.

Signs and order follow the circumplex of affect (Russell, 1980); values are our choice.
"""


@dataclass(frozen=True)
class Looseness:
    """How loosely simulated faces follow simulated reports.

    All numbers are our choice. A regressor on the simulated faces reaches about the mean
    Pearson published for feature-based systems on real reactions (0.28 to 0.41). Pairs are
    Beta parameters; tuples of seven follow `REACTIONS`.
    """

    expressivity: tuple[float, float] = (2.0, 1.5)
    """Per person: visible share of what is felt."""
    strength: tuple[float, float] = (3.0, 1.2)
    """Per clip: labels are relative, so even the strongest reaction may be weak."""
    report_noise: float = 0.28
    """Standard deviation of the report around the feeling."""
    shows: tuple[float, ...] = (0.65, 0.70, 0.65, 0.65, 0.60, 0.65, 0.70)
    """Probability that a reaction shows at all, per clip."""
    coupling: tuple[float, float] = (3.0, 1.2)
    """Visible share of a reaction that shows, per clip."""
    apex: tuple[float, ...] = (0.60, 1.00, 0.60, 1.00, 0.80, 1.00, 1.00)
    """Unit intensity in a full display."""
    onset_s: float = 6.0
    """Latest onset of reactions."""
    rise_s: tuple[float, ...] = (1.5, 0.6, 1.2, 0.7, 1.2, 0.4, 0.3)
    """Mean time from onset to apex."""
    hold_s: tuple[float, ...] = (4.0, 3.0, 4.0, 2.0, 4.0, 2.0, 1.5)
    """Mean time at the apex."""
    decay_s: float = 1.5
    """Mean time from apex to rest."""
    repeats: float = 0.35
    """Probability of a second bout."""
    unit_spread: float = 0.35
    """Log standard deviation of each unit's strength, once over people and once over clips."""
    unit_dropped: float = 0.15
    """Probability that a unit is missing from a display, per clip."""
    masking_people: float = 0.30
    """Share of people who sometimes smile over a negative reaction (12 and 25 without 6)."""
    masked: float = 0.50
    """Probability that such a person does so, per clip."""
    masking_smile: float = 0.70
    """Strength of that smile, relative to the masked reaction."""
    blends: float = 0.0
    """Probability that a second, unlabelled reaction shows, per clip."""
    blended: tuple[float, float] = (0.3, 0.7)
    """Range of its strength, relative to the strongest reaction."""
    talks: float = 0.30
    """Probability of speech in a reaction clip."""
    rest_trace: float = 0.04
    """Mean unit intensity in a resting face."""
    rest_habit: float = 0.15
    """Probability that a unit is permanently active in a person's resting face."""


def list_frame_times(fps: float) -> Array:
    """Return (T,) frame times in seconds of the longest clip; T is 30 at 2 frames per second."""
    return np.arange(ceil(LONGEST_S * fps)) / fps


@dataclass(frozen=True)
class People:
    """Traits that are constant for a person; arrays over the N clips of a block."""

    expressivity: Array  # (N,)
    unit_strength: Array  # (N, 17)
    shows_unit: NDArray[np.bool_]  # (N, 7, 17)
    masks: NDArray[np.bool_]  # (N,)
    rest: Array  # (N, 17)
    bias: Array  # (N, 26), bias of the extractor


def sample_people(
    subjects: list[int], seed: int, looseness: Looseness, noise: ExtractorNoise
) -> People:
    """Sample the traits of the people in the N clips of a block; `subjects` are N numbers."""
    traits = {
        subject: _sample_person(subject, seed, looseness, noise)
        for subject in sorted(set(subjects))
    }
    columns = zip(*(traits[subject] for subject in subjects), strict=True)
    return People(*(np.stack(values) for values in columns))


def _sample_person(
    subject: int, seed: int, looseness: Looseness, noise: ExtractorNoise
) -> tuple[Any, ...]:
    """Sample one person's traits in the order of `People`; identical in every block."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, subject)))
    units = len(ACTION_UNITS)
    habits = (rng.random(units) < looseness.rest_habit) * rng.uniform(0.05, 0.25, units)
    habits[find_columns(25, 26)] *= 0.3  # at rest the mouth is usually closed
    return (
        rng.beta(*looseness.expressivity),
        np.exp(looseness.unit_spread * rng.standard_normal(units)),
        rng.random((len(REACTIONS), units)) < _table(ASSOCIATIONS, ACTION_UNITS),
        rng.random() < looseness.masking_people,
        rng.exponential(looseness.rest_trace, units).clip(0, 0.2) + habits,
        sample_bias(noise, rng),
    )


def show_reactions(
    labels: Array,
    people: People,
    pace: Array,
    fps: float,
    looseness: Looseness,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Return visible reactions (N, T, 7) and their action units (N, T, 17), in [0, 1].

    `labels` are (N, 7); `pace` is (N,), the factor on the duration of a clip's displays. The
    number of random values taken from `rng` does not depend on `fps`.
    """
    felt = (labels + looseness.report_noise * rng.standard_normal(labels.shape)).clip(0, 1)
    felt *= labels.max(1, keepdims=True) > 0  # no feeling in a quiet clip
    visible = rng.random(labels.shape) < np.array(looseness.shows)
    coupling = visible * rng.beta(*looseness.coupling, labels.shape)
    coupling *= rng.beta(*looseness.strength, len(labels))[:, None]
    level = felt * coupling * people.expressivity[:, None]
    if looseness.blends:
        level = _blend(level, looseness, rng)
    shown = level[:, None] * _envelopes(pace, fps, looseness, rng)  # (N, T, 7)
    units = np.zeros((*shown.shape[:2], len(ACTION_UNITS)))
    for reaction, apex in enumerate(looseness.apex):
        spread = np.exp(
            looseness.unit_spread * rng.standard_normal((len(labels), len(ACTION_UNITS)))
        )
        stays = people.shows_unit[:, reaction] & (
            rng.random(spread.shape) >= looseness.unit_dropped
        )
        strength = apex * stays * spread * people.unit_strength  # (N, 17)
        units = combine_causes(units, (shown[..., reaction, None] * strength[:, None]).clip(0, 1))
    return shown, units


def _blend(level: Array, looseness: Looseness, rng: np.random.Generator) -> Array:
    """Return (N, 7) visible strengths, with a second reaction in some clips."""
    count = len(level)
    strength = rng.uniform(*looseness.blended, count)
    beside = strength * (rng.random(count) < looseness.blends) * level.max(1)
    second = rng.integers(len(REACTIONS), size=count)
    level[np.arange(count), second] = np.maximum(level[np.arange(count), second], beside)
    return level


def _envelopes(pace: Array, fps: float, looseness: Looseness, rng: np.random.Generator) -> Array:
    """Return (N, T, 7) time courses in [0, 1]; some have a second bout."""
    time_s = list_frame_times(fps)[:, None] / pace[:, None, None]  # (N, T, 1)
    shape = (len(pace), 1, len(REACTIONS))
    rise_s, hold_s = (
        rng.gamma(2, np.array(mean) / 2, shape) + 0.1
        for mean in (looseness.rise_s, looseness.hold_s)
    )
    decay_s = rng.gamma(2, looseness.decay_s / 2, shape) + 0.1
    onset_s = rng.uniform(0, looseness.onset_s, shape)
    again_s = onset_s + rise_s + hold_s + decay_s + rng.exponential(2.0, shape)
    again = (rng.random(shape) < looseness.repeats) * rng.uniform(0.4, 1.0, shape)

    def bout(start_s: Array) -> Array:
        up = ((time_s - start_s) / rise_s).clip(0, 1)
        down = ((start_s + rise_s + hold_s + decay_s - time_s) / decay_s).clip(0, 1)
        return up * down

    return np.maximum(bout(onset_s), again * bout(again_s))


def sample_masking_smile(
    shown: Array, people: People, looseness: Looseness, rng: np.random.Generator
) -> Array:
    """Return (N, T) the smile with which some people mask visible negative reactions."""
    masked = people.masks & (rng.random(len(shown)) < looseness.masked)
    negative = [REACTIONS.index(name) for name in REACTIONS if CIRCUMPLEX[name][0] < 0]
    return looseness.masking_smile * masked[:, None] * shown[..., negative].max(-1)


def sample_speech(talks: NDArray[np.bool_], fps: float, rng: np.random.Generator) -> Array:
    """Return (N, T, 17) the units of speech, with 3 to 7 mouth openings per second.

    At 2 frames per second they look random. Our choice.
    """
    time_s = list_frame_times(fps)
    shape = (len(talks), len(time_s))
    openings_a_second = rng.uniform(3, 7, (len(talks), 1))
    phase = openings_a_second * time_s + sample_wander(shape, fps, rng)
    speaks = talks[:, None] & (sample_autoregressive(shape, 0.8, fps, rng) > -0.6)  # with pauses
    opening = np.abs(np.sin(np.pi * phase)) * speaks
    units = np.zeros((*shape, len(ACTION_UNITS)))
    for unit, strength in ((25, 0.75), (26, 0.5)):
        units[..., ACTION_UNITS.index(unit)] = strength * opening
    for unit in (10, 17, 24):
        now_and_then = speaks & (rng.random(shape) < 0.15)
        units[..., ACTION_UNITS.index(unit)] = now_and_then * rng.uniform(0, 0.5, shape)
    return units


def sample_wander(shape: tuple[int, int], fps: float, rng: np.random.Generator) -> Array:
    """Return (N, T) random walks along axis 1.

    Their standard deviation after half a second is 0.15 at any rate (our choice).
    """
    return 0.15 * sqrt(2 / fps) * rng.standard_normal(shape).cumsum(1)


def sample_rest(people: People, fps: float, rng: np.random.Generator) -> Array:
    """Return (N, T, 17) resting faces with a slow drift."""
    shape = (len(people.rest), len(list_frame_times(fps)), len(ACTION_UNITS))
    drift = sample_autoregressive(shape, 0.95, fps, rng)
    return (people.rest[:, None] * (1 + 0.4 * drift)).clip(0, 0.4)


def compose_affect(shown: Array, smile: Array, units: Array) -> Array:
    """Return (N, T, 26) the true affect; a masking smile counts as some happiness."""
    valence_arousal = shown @ np.array(list(CIRCUMPLEX.values()))  # (N, T, 2)
    valence_arousal[..., 0] += smile * CIRCUMPLEX["Adoration"][0]
    expressions = shown @ _table(NEAREST_EXPRESSIONS, EXPRESSIONS)  # (N, T, 7)
    expressions[..., EXPRESSIONS.index("happiness")] += smile
    expressions[..., EXPRESSIONS.index("neutral")] = (1 - expressions.sum(-1)).clip(0.05, 1)
    expressions /= expressions.sum(-1, keepdims=True)
    return np.concatenate([valence_arousal.clip(-1, 1), expressions, units], axis=-1)


def _table(rows: Mapping[str, Mapping[Any, float]], columns: Sequence[object]) -> Array:
    table = [[row.get(column, 0.0) for column in columns] for row in rows.values()]
    return np.array(table, dtype=float)
