"""How simulated faces show reactions and other displays: people, time courses, speech, rest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, NO_CLASS, REACTIONS
from mma_mrnnet.model.losses import soft_co_annotation
from mma_mrnnet.model.priors import ACTION_UNIT_PRIOR, action_unit_prior
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

EXPRESSION_CIRCUMPLEX: dict[str, tuple[float, float]] = {
    "neutral": (0.0, 0.0),
    "anger": (-0.60, 0.65),
    "disgust": CIRCUMPLEX["Disgust"],
    "fear": CIRCUMPLEX["Fear"],
    "happiness": CIRCUMPLEX["Amusement"],
    "sadness": (-0.65, -0.30),
    "surprise": CIRCUMPLEX["Surprise"],
}
"""Valence and arousal of full expressions, on the reactions' circumplex. Our choice."""


class Display(NamedTuple):
    """What a face does without a reaction, in repeated bouts. Times are means in seconds."""

    units: dict[int, float]  # as in `ASSOCIATIONS`: the share of cases that show the unit
    strength: tuple[float, float]  # range of the units' intensities at the apex
    rise_s: float  # from rest to apex, and back
    hold_s: float
    rest_s: float  # between two bouts
    changes: bool = False  # units and intensities are sampled for each bout, not once a clip


DISPLAYS: dict[str, Display] = {
    "grin": Display({12: 1, 25: 0.7, 6: 0.25, 7: 0.25, 20: 0.3}, (0.3, 1.0), 0.3, 6.0, 2.0),
    "smirk": Display({12: 1, 1: 0.3, 2: 0.3, 10: 0.3, 20: 0.2, 25: 0.2}, (0.2, 0.6), 0.3, 3.0, 3.0),
    "shout": Display({25: 1, 26: 1, 4: 0.3, 7: 0.3, 10: 0.3, 20: 0.3}, (0.3, 1.0), 0.2, 1.0, 2.0),
    "yawn": Display({25: 1, 26: 1, 1: 0.3, 4: 0.3, 7: 0.6, 9: 0.2}, (0.4, 1.0), 1.5, 2.0, 5.0),
    "pucker": Display({17: 0.8, 23: 0.5, 24: 0.5, 25: 0.3}, (0.2, 0.9), 0.4, 2.0, 2.0),
    "clowning": Display(dict.fromkeys(ACTION_UNITS, 0.3), (0.2, 1.0), 0.2, 0.6, 0.3, True),
    "singing": Display(
        {25: 0.9, 26: 0.6, 1: 0.3, 2: 0.3, 4: 0.2, 12: 0.2, 17: 0.25, 20: 0.15, 24: 0.15},
        (0.2, 0.9),
        *(0.2, 0.5, 0.2, True),
    ),
    "wink": Display({7: 1, 6: 0.6, 12: 0.5, 4: 0.3, 2: 0.2}, (0.2, 0.6), 0.1, 0.3, 3.0),
    "sneeze": Display({7: 1, 4: 0.8, 9: 0.8, 6: 0.6, 10: 0.6, 25: 0.5}, (0.3, 1.0), 0.4, 0.4, 5.0),
    "squint": Display({7: 1, 4: 0.7, 6: 0.5, 10: 0.3, 9: 0.2}, (0.2, 0.9), 0.5, 4.0, 2.0),
    "brows": Display({1: 1, 2: 1, 5: 0.2}, (0.2, 0.9), 0.2, 0.6, 1.5),
}
"""Displays that are no reaction, all our choice.

Posed grins begin fast and stay flat, mostly without AU6; one-sided displays (smirk, wink) are seen
at half strength; puckers, funnels and puffed cheeks, which have no unit here, as 17, 23, 24 and 25.
"""

MOST_BOUTS = 24  # in a clip; enough for the fastest display to fill `LONGEST_S`
LOOKS_TEMPERATURE = 0.1
"""Of the expressions that a display looks like: the default of co-annotation."""


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
    """Probability of speech in a reaction clip, or beside a display that is no reaction."""
    poses: float = 0.50
    """Probability that a quiet clip has one of `DISPLAYS`; each is as probable as the others."""
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


def show_display(
    name: str, strength: Array, pace: Array, fps: float, rng: np.random.Generator
) -> Array:
    """Return (N, T, 17) units of a display of `DISPLAYS` in N clips.

    `strength` is (N, 17), the people's `unit_strength`; `pace` is (N,), as in
    `show_reactions`. The number of random values taken from `rng` does not depend on `fps`.
    """
    display = DISPLAYS[name]
    clips, units = strength.shape
    time_s = list_frame_times(fps) / pace[:, None]  # (N, T)
    shape = (MOST_BOUTS, clips, 1)
    rise_s, hold_s, rest_s = (
        rng.gamma(2, mean / 2, shape) + 0.1
        for mean in (display.rise_s, display.hold_s, display.rest_s)
    )
    lasts_s = 2 * rise_s + hold_s
    # The first bout may have begun before the clip.
    first_s = rng.uniform(-lasts_s[0], rest_s[0])
    start_s = first_s + (lasts_s + rest_s).cumsum(0) - (lasts_s + rest_s)[0]
    sampled = (MOST_BOUTS if display.changes else 1, clips, units)
    shows = rng.random(sampled) < _table({name: display.units}, ACTION_UNITS)
    apex = shows * rng.uniform(*display.strength, sampled) * strength
    apex = np.broadcast_to(apex.clip(0, 1), (MOST_BOUTS, clips, units))
    shown = np.zeros((*time_s.shape, units))
    for bout in range(MOST_BOUTS):
        up = (time_s - start_s[bout]) / rise_s[bout]
        down = (start_s[bout] + lasts_s[bout] - time_s) / rise_s[bout]
        course = np.minimum(up, down).clip(0, 1)  # (N, T)
        shown = np.maximum(shown, course[..., None] * apex[bout, :, None])
    return shown


def look_like(units: Array) -> Array:
    """Return (N, T, 9) valence, arousal and expressions that (N, T, 17) units look like.

    Expressions follow from the units as in co-annotation: a wide-open mouth looks like happiness
    and surprise, whatever the person feels.
    """
    rows = torch.from_numpy(units.reshape(-1, units.shape[-1]))
    unlabelled = torch.full((len(rows),), NO_CLASS)
    looks = soft_co_annotation(unlabelled, rows, action_unit_prior(), LOOKS_TEMPERATURE)
    expressions = looks.numpy().reshape(*units.shape[:2], len(EXPRESSIONS))
    valence_arousal = expressions @ np.array(list(EXPRESSION_CIRCUMPLEX.values()))
    return np.concatenate([valence_arousal, expressions], axis=-1)


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
