"""Simulated clips shaped like Hume-Reaction's: people, reactions in time, faces that loosely follow them.

Nothing here was recorded from people. Labels are drawn in `simulated_labels.py`, the extractor's errors in
`simulated_extractor.py`; faces as pixels are in `drawn_faces.py`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from datasets import Dataset, DatasetInfo
from numpy.typing import NDArray

from mma_mrnnet.data.records import clip_features
from mma_mrnnet.data.simulated_extractor import (
    ExtractorNoise,
    autoregressive,
    columns_of,
    draw_bias,
    either,
    report_affect,
)
from mma_mrnnet.data.simulated_labels import draw_labels
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, REACTIONS, affect_names
from mma_mrnnet.model.priors import ACTION_UNIT_PRIOR

Array = NDArray[np.float64]
Kind = Literal["reaction", "neutral", "talking"]

FPS = 2.0
MAX_FRAMES = 30
BLOCK = 256
"""Clips simulated at once; always whole, so that a clip does not depend on how many were asked for."""

PEOPLE, CLIPS = 2222, 25067
"""People and clips of Hume-Reaction: a person has about eleven clips."""

ASSOCIATIONS: dict[str, dict[int, float]] = {
    "Adoration": {6: 0.7, 12: 1.0, 25: 0.15},  # our choice: a soft, slow smile; no set is published
    "Amusement": {6: 1.0, 7: 1.0, 12: 1.0, 25: 1.0, 26: 1.0},  # Keltner et al. 2019, Table 2
    # Our choice: a weak fear with the jaw shut; no display is published.
    "Anxiety": {1: 0.8, 2: 0.4, 4: 0.8, 5: 0.3, 20: 0.5, 23: 0.15, 24: 0.5},
    "Disgust": ACTION_UNIT_PRIOR["disgust"],  # Du et al. 2014, Table 1
    # 1, 17, 24: sympathy in Keltner et al. 2019, Table 2; the others, for pain and sadness, are our choice.
    "Empathic-Pain": {1: 1.0, 17: 1.0, 24: 1.0, 4: 0.6, 6: 0.3, 7: 0.4, 9: 0.2, 11: 0.25, 15: 0.4, 23: 0.15},
    "Fear": ACTION_UNIT_PRIOR["fear"],  # Du et al. 2014, Table 1
    "Surprise": ACTION_UNIT_PRIOR["surprise"],  # Du et al. 2014, Table 1
}
"""Action units of each reaction: 1 where part of the display, otherwise the share of people who show them.

Du, Tao & Martinez, PNAS 111(15), 2014; Keltner, Sauter, Tracy & Cowen, J. Nonverbal Behavior 43, 2019."""

NEAREST_EXPRESSIONS: dict[str, dict[str, float]] = {
    "Adoration": {"happiness": 0.8},
    "Amusement": {"happiness": 1.0},
    "Anxiety": {"fear": 0.6, "sadness": 0.1},
    "Disgust": {"disgust": 0.9, "anger": 0.1},
    "Empathic-Pain": {"sadness": 0.6, "disgust": 0.15, "fear": 0.15},
    "Fear": {"fear": 1.0},
    "Surprise": {"surprise": 1.0},
}
"""How much of each basic expression a fully shown reaction looks like; neutral takes the rest. Our choice."""

CIRCUMPLEX: dict[str, tuple[float, float]] = {
    "Adoration": (0.60, 0.05),
    "Amusement": (0.80, 0.50),
    "Anxiety": (-0.45, 0.45),
    "Disgust": (-0.65, 0.35),
    "Empathic-Pain": (-0.55, 0.05),
    "Fear": (-0.60, 0.80),
    "Surprise": (0.10, 0.85),
}
"""Valence and arousal of each fully shown reaction.

Signs and order follow the circumplex of affect (Russell, 1980); the values are our choice."""


@dataclass(frozen=True)
class Looseness:
    """How loosely simulated faces follow simulated reports.

    Every number is our choice, set so that a regressor on the simulated faces reaches about the mean Pearson
    that is published for feature-based systems on real reactions (0.28 to 0.41). Pairs are the parameters of
    a Beta; tuples of seven are in the order of `REACTIONS`.
    """

    expressivity: tuple[float, float] = (2.0, 1.5)
    """Of a person: how much of what is felt can be seen."""
    strength: tuple[float, float] = (3.0, 1.2)
    """Of a clip: labels are relative, so the strongest reaction may still be faint."""
    report_noise: float = 0.28
    """Standard deviation between what is felt and what is reported."""
    shows: tuple[float, ...] = (0.65, 0.70, 0.65, 0.65, 0.60, 0.65, 0.70)
    """Chance that a reaction shows at all, by clip."""
    coupling: tuple[float, float] = (3.0, 1.2)
    """How much of a reaction that shows can be seen, by clip."""
    apex: tuple[float, ...] = (0.60, 1.00, 0.60, 1.00, 0.80, 1.00, 1.00)
    """Intensity of the units in a full display."""
    onset_s: float = 6.0
    """Reactions start within this time."""
    rise_s: tuple[float, ...] = (1.5, 0.6, 1.2, 0.7, 1.2, 0.4, 0.3)
    """Mean time from the onset to the apex."""
    hold_s: tuple[float, ...] = (4.0, 3.0, 4.0, 2.0, 4.0, 2.0, 1.5)
    """Mean time at the apex."""
    decay_s: float = 1.5
    """Mean time back to rest."""
    repeats: float = 0.35
    """Chance of a second bout."""
    unit_spread: float = 0.35
    """Log standard deviation of each unit's strength, over people and again over clips."""
    unit_dropped: float = 0.15
    """Chance that a unit of a display stays away, by clip."""
    masking_people: float = 0.30
    """Share of people who sometimes smile over a negative reaction (12 and 25 without 6)."""
    masked: float = 0.50
    """Chance that such a person does so, by clip."""
    masking_smile: float = 0.70
    """Strength of that smile beside the reaction that it masks."""
    talks: float = 0.30
    """Chance of speech in a reaction clip."""
    rest_trace: float = 0.04
    """Mean intensity of each unit in a resting face."""
    rest_habit: float = 0.15
    """Chance that a unit is a lasting part of a person's resting face."""


@dataclass(frozen=True)
class SimulatedClip:
    """One simulated clip at 2 frames a second, the frames without a detected face left out.

    Attributes:
        clip_id: unique within one call and one name.
        subject: the simulated person.
        kind: `reaction`, or a quiet clip: `neutral` (calm) or `talking` (calm and talking).
        affect: (L, 26) float32 as an extractor would report it, channels as `labels.affect_names()`.
        true_affect: (L, 26) float32, the face's true state; its units are intensities, not probabilities.
        labels: (7,) float32 in the order of `REACTIONS`. Relative within a clip, as Hume-Reaction's are:
            the strongest reaction is exactly 1 however faint it was. All 0 in a quiet clip (our choice; the
            corpus has none).
    """

    clip_id: str
    subject: str
    kind: Kind
    affect: NDArray[np.float32]
    true_affect: NDArray[np.float32]
    labels: NDArray[np.float32]


def simulate_reactions(
    count: int,
    *,
    seed: int,
    quiet_share: float = 0.0,
    short_share: float = 0.0,
    name: str = "simulated",
    looseness: Looseness | None = None,
    noise: ExtractorNoise | None = None,
) -> list[SimulatedClip]:
    """Clips shaped like Hume-Reaction's: its published lengths and label marginals, the rest our choice.

    The same seed gives the same clips bit for bit, and a longer list starts with the shorter one.

    Args:
        count: how many clips, at least 0.
        seed: not negative.
        quiet_share: share of clips without any reaction, in [0, 1]; the corpus's shape is 0.
        short_share: share of clips of 1 to 10 s, the whole display within them, in [0, 1]; the corpus has none.
        name: first part of clip and subject names.
        looseness: how loosely faces follow reports; None for the defaults.
        noise: how the extractor errs; None for the defaults.

    Raises:
        ValueError: an argument out of range.
    """
    if count < 0 or seed < 0 or not 0 <= quiet_share <= 1 or not 0 <= short_share <= 1:
        raise ValueError(
            "count and seed must be at least 0, quiet_share and short_share in [0, 1]; "
            f"got {count}, {seed}, {quiet_share}, {short_share}"
        )
    looseness, noise = looseness or Looseness(), noise or ExtractorNoise()
    clips: list[SimulatedClip] = []
    for block in range(-(-count // BLOCK)):
        clips += _simulate_block(block, seed, (quiet_share, short_share), name, looseness, noise)
    return clips[:count]


def hume_like_splits(
    seed: int,
    counts: tuple[int, int, int] = (15806, 4657, 4604),
    *,
    quiet_share: float = 0.0,
    short_share: float = 0.0,
) -> dict[str, list[SimulatedClip]]:
    """`train`, `validation` and `test` lists of simulated clips; no person is in two of them.

    Args:
        seed: not negative.
        counts: clips of train, validation and test; Hume-Reaction's by default.
        quiet_share: share of quiet clips in every split.
        short_share: share of short clips in the training split; the others keep the corpus's lengths.
    """
    seeds = np.random.SeedSequence(seed).generate_state(3)
    return {
        split: simulate_reactions(
            count,
            seed=int(split_seed),
            quiet_share=quiet_share,
            short_share=short_share if split == "train" else 0.0,
            name=split,
        )
        for split, split_seed, count in zip(("train", "validation", "test"), seeds, counts, strict=True)
    }


def as_dataset(clips: list[SimulatedClip]) -> Dataset:
    """The clips as a data set: the columns of `records.clip_features`.

    Names of the label and affect columns stand in `info.description`, one line each.
    """
    features = clip_features(len(REACTIONS))
    columns = {
        "clip_id": [clip.clip_id for clip in clips],
        "subject": [clip.subject for clip in clips],
        "kind": [clip.kind for clip in clips],
        "affect": [clip.affect for clip in clips],
        "labels": [clip.labels for clip in clips],
    }
    description = (
        "Simulated, not recorded from people.\n"
        f"labels: {', '.join(REACTIONS)}\naffect: {', '.join(affect_names())}\nframes a second: {FPS}"
    )
    return Dataset.from_dict(columns, features=features, info=DatasetInfo(description=description, features=features))


def _simulate_block(
    block: int, seed: int, shares: tuple[float, float], name: str, looseness: Looseness, noise: ExtractorNoise
) -> list[SimulatedClip]:
    """The N = `BLOCK` clips of one block, T = `MAX_FRAMES` frames each until the faceless are cut out."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, block)))
    indices = range(block * BLOCK, (block + 1) * BLOCK)
    subjects = [index * PEOPLE // CLIPS for index in indices]
    people = _people(subjects, seed, looseness, noise)
    quiet_share, short_share = shares
    # A short clip is a clip played faster: its length and all its times shrink by one factor.
    pace = np.where(rng.random(BLOCK) < short_share, rng.uniform(0.08, 0.8, BLOCK), 1.0)  # (N,)
    has_face = _frames_with_face(pace, rng)  # (N, T)
    labels = draw_labels(BLOCK, rng)  # (N, 7)
    quiet, talker = rng.random(BLOCK) < quiet_share, rng.random(BLOCK) < 0.5
    labels[quiet] = 0.0
    talks = np.where(quiet, talker, rng.random(BLOCK) < looseness.talks)
    shown, units = _display(labels, people, pace, looseness, rng)  # (N, T, 7), (N, T, 17)
    smile = _masking_smile(shown, people, looseness, rng)  # (N, T)
    speech = _speech(talks, rng)  # (N, T, 17)
    for column in columns_of(12, 25):
        units[..., column] = either(units[..., column], smile)
    units = either(either(units, speech), _rest(people, rng))
    true = _affect_of(shown, smile, units)  # (N, T, 26)
    reported = report_affect(true, speech[..., columns_of(25)], people.bias, noise, rng)
    kinds = np.where(quiet, np.where(talks, "talking", "neutral"), "reaction")
    return [
        SimulatedClip(
            clip_id=f"{name}-{index:06d}",
            subject=f"{name}-person-{subject:04d}",
            kind=str(kinds[row]),
            affect=reported[row, has_face[row]].astype(np.float32),  # (L, 26)
            true_affect=true[row, has_face[row]].astype(np.float32),  # (L, 26)
            labels=labels[row].astype(np.float32),
        )
        for row, (index, subject) in enumerate(zip(indices, subjects, strict=True))
    ]


def _table(rows: dict[str, dict], columns: tuple) -> Array:
    return np.array([[row.get(column, 0.0) for column in columns] for row in rows.values()], dtype=float)


@dataclass(frozen=True)
class _People:
    """Traits that a person keeps from clip to clip; arrays over the N clips of a block."""

    expressivity: Array  # (N,)
    unit_strength: Array  # (N, 17)
    shows_unit: NDArray[np.bool_]  # (N, 7, 17)
    masks: NDArray[np.bool_]  # (N,)
    rest: Array  # (N, 17)
    bias: Array  # (N, 26) of the extractor


def _people(subjects: list[int], seed: int, looseness: Looseness, noise: ExtractorNoise) -> _People:
    traits = {subject: _person(subject, seed, looseness, noise) for subject in sorted(set(subjects))}
    return _People(*(np.stack(values) for values in zip(*(traits[subject] for subject in subjects), strict=True)))


def _person(subject: int, seed: int, looseness: Looseness, noise: ExtractorNoise) -> tuple:
    """One person's traits in the order of `_People`; the same in every block."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(1, subject)))
    units = len(ACTION_UNITS)
    habits = (rng.random(units) < looseness.rest_habit) * rng.uniform(0.05, 0.25, units)
    habits[columns_of(25, 26)] *= 0.3  # calm mouths are closed
    return (
        rng.beta(*looseness.expressivity),
        np.exp(looseness.unit_spread * rng.standard_normal(units)),
        rng.random((len(REACTIONS), units)) < _table(ASSOCIATIONS, ACTION_UNITS),
        rng.random() < looseness.masking_people,
        rng.exponential(looseness.rest_trace, units).clip(0, 0.2) + habits,
        draw_bias(noise, rng),
    )


def _frames_with_face(pace: Array, rng: np.random.Generator) -> NDArray[np.bool_]:
    """(N, T) True where a frame exists and its face was found.

    Known of Hume-Reaction's crops: median 23, mean 23.6, 95th percentile 29, range 1 to 30, 0.8 % below 16.
    The Beta of the durations (9.9 to 14.98 s) and the rates of missed faces are chosen to agree with that.
    """
    duration_s = 9.9 + 5.08 * rng.beta(0.8, 0.8 * 0.6614 / 0.3386, BLOCK)
    exists = np.arange(MAX_FRAMES) < np.floor(FPS * duration_s * pace)[:, None] + 1
    found_share = np.where(rng.random(BLOCK) < 0.013, rng.uniform(0, 0.9, BLOCK), 0.997)
    has_face = exists & (rng.random((BLOCK, MAX_FRAMES)) < found_share[:, None])
    has_face[~has_face.any(1), 0] = True  # a clip without any face would not be in the corpus
    return has_face


def _display(
    labels: Array, people: _People, pace: Array, looseness: Looseness, rng: np.random.Generator
) -> tuple[Array, Array]:
    """What shows of the reactions (N, T, 7), and the action units (N, T, 17) of it, both in [0, 1]."""
    felt = (labels + looseness.report_noise * rng.standard_normal(labels.shape)).clip(0, 1)
    felt *= labels.max(1, keepdims=True) > 0  # nothing is felt in a quiet clip
    visible = rng.random(labels.shape) < np.array(looseness.shows)
    coupling = visible * rng.beta(*looseness.coupling, labels.shape)
    coupling *= rng.beta(*looseness.strength, BLOCK)[:, None]
    level = felt * coupling * people.expressivity[:, None]
    shown = level[:, None] * _envelopes(pace, looseness, rng)  # (N, T, 7)
    units = np.zeros((BLOCK, MAX_FRAMES, len(ACTION_UNITS)))
    for reaction, apex in enumerate(looseness.apex):
        spread = np.exp(looseness.unit_spread * rng.standard_normal((BLOCK, len(ACTION_UNITS))))
        stays = people.shows_unit[:, reaction] & (rng.random(spread.shape) >= looseness.unit_dropped)
        strength = apex * stays * spread * people.unit_strength  # (N, 17)
        units = either(units, (shown[..., reaction, None] * strength[:, None]).clip(0, 1))
    return shown, units


def _envelopes(pace: Array, looseness: Looseness, rng: np.random.Generator) -> Array:
    """(N, T, 7) onset, apex and offset of each reaction, in [0, 1]; some come back a second time."""
    time_s = np.arange(MAX_FRAMES)[:, None] / FPS / pace[:, None, None]  # (N, T, 1)
    shape = (BLOCK, 1, len(REACTIONS))
    rise_s, hold_s = (rng.gamma(2, np.array(mean) / 2, shape) + 0.1 for mean in (looseness.rise_s, looseness.hold_s))
    decay_s = rng.gamma(2, looseness.decay_s / 2, shape) + 0.1
    onset_s = rng.uniform(0, looseness.onset_s, shape)
    again_s = onset_s + rise_s + hold_s + decay_s + rng.exponential(2.0, shape)
    again = (rng.random(shape) < looseness.repeats) * rng.uniform(0.4, 1.0, shape)

    def bout(start_s: Array) -> Array:
        up = ((time_s - start_s) / rise_s).clip(0, 1)
        down = ((start_s + rise_s + hold_s + decay_s - time_s) / decay_s).clip(0, 1)
        return up * down

    return np.maximum(bout(onset_s), again * bout(again_s))


def _masking_smile(shown: Array, people: _People, looseness: Looseness, rng: np.random.Generator) -> Array:
    """(N, T) the smile that some people put over negative reactions while these show."""
    masked = people.masks & (rng.random(BLOCK) < looseness.masked)
    negative = [REACTIONS.index(name) for name in REACTIONS if CIRCUMPLEX[name][0] < 0]
    return looseness.masking_smile * masked[:, None] * shown[..., negative].max(-1)


def _speech(talks: NDArray[np.bool_], rng: np.random.Generator) -> Array:
    """(N, T, 17) the units of talking: 3 to 7 openings a second, random at 2 frames a second (our choice)."""
    time_s = np.arange(MAX_FRAMES) / FPS
    phase = rng.uniform(3, 7, (BLOCK, 1)) * time_s + 0.15 * rng.standard_normal((BLOCK, MAX_FRAMES)).cumsum(1)
    speaks = talks[:, None] & (autoregressive((BLOCK, MAX_FRAMES), 0.8, rng) > -0.6)  # with pauses
    opening = np.abs(np.sin(np.pi * phase)) * speaks
    units = np.zeros((BLOCK, MAX_FRAMES, len(ACTION_UNITS)))
    for unit, strength in ((25, 0.75), (26, 0.5)):
        units[..., ACTION_UNITS.index(unit)] = strength * opening
    for unit in (10, 17, 24):
        now_and_then = speaks & (rng.random((BLOCK, MAX_FRAMES)) < 0.15)
        units[..., ACTION_UNITS.index(unit)] = now_and_then * rng.uniform(0, 0.5, (BLOCK, MAX_FRAMES))
    return units


def _rest(people: _People, rng: np.random.Generator) -> Array:
    """(N, T, 17) the resting face with a slow drift: thin lips or a lowered brow in some people."""
    drift = autoregressive((BLOCK, MAX_FRAMES, len(ACTION_UNITS)), 0.95, rng)
    return (people.rest[:, None] * (1 + 0.4 * drift)).clip(0, 0.4)


def _affect_of(shown: Array, smile: Array, units: Array) -> Array:
    """(N, T, 26) the face's true affect; a masking smile reads as some happiness."""
    valence_arousal = shown @ np.array(list(CIRCUMPLEX.values()))  # (N, T, 2)
    valence_arousal[..., 0] += smile * CIRCUMPLEX["Adoration"][0]
    expressions = shown @ _table(NEAREST_EXPRESSIONS, EXPRESSIONS)  # (N, T, 7)
    expressions[..., EXPRESSIONS.index("happiness")] += smile
    expressions[..., EXPRESSIONS.index("neutral")] = (1 - expressions.sum(-1)).clip(0.05, 1)
    expressions /= expressions.sum(-1, keepdims=True)
    return np.concatenate([valence_arousal.clip(-1, 1), expressions, units], axis=-1)
