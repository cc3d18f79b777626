"""Simulated clips with Hume-Reaction's shape: labels, loosely matching faces, errors.

Nothing here was recorded from people. See `display.py` for displays, `extractor_noise.py` for
the extractor's errors, `domains.py` for other corpora, and `drawn_faces.py` for pictures.
"""

from dataclasses import dataclass
from functools import cache
from math import erf, sqrt
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo
from numpy.typing import NDArray

from mma_mrnnet.features.records import affect_column, clip_features
from mma_mrnnet.model.labels import REACTIONS, affect_names
from mma_mrnnet.results import Provenance
from mma_mrnnet.synthetic.display import (
    DISPLAYS,
    LONGEST_S,
    Looseness,
    compose_affect,
    list_frame_times,
    look_like,
    sample_masking_smile,
    sample_people,
    sample_rest,
    sample_speech,
    show_display,
    show_reactions,
)
from mma_mrnnet.synthetic.domains import FPS, Domain, Recording, domain_named
from mma_mrnnet.synthetic.extractor_noise import (
    Array,
    ExtractorNoise,
    combine_causes,
    find_columns,
    report_affect,
    turn_away,
)

PROVENANCE = Provenance("simulated", "apache-2.0", made_up=True, labels="simulated")

Mask = NDArray[np.bool_]

MAX_FRAMES = 30  # in the longest clip at `FPS`
MOST_FPS = 60.0  # at higher rates affect hardly changes between frames
BLOCK = 256  # clips simulated together; a clip does not depend on how many are requested
PEOPLE, CLIPS = 2222, 25067  # of Hume-Reaction: about eleven clips per person
HUME_COUNTS = (15806, 4657, 4604)  # clips of its train, validation and test splits
MOST_STRETCHES = 8  # without a face, per clip


@dataclass(frozen=True)
class SimulatedClip:
    """One simulated clip; frames without a detected face are left out.

    Attributes:
        clip_id: unique within a call and a `name`.
        kind: `reaction`, or a quiet clip: `neutral` (calm), `talking` (calm and talking) or
            one of `DISPLAYS`.
        affect: (L, 26) float32, the extractor's report, in the order of `affect_names()`.
        true_affect: (L, 26) float32, the true state; units are intensities, not probabilities.
        labels: (7,) float32 in the order of `REACTIONS`, relative within a clip as in
            Hume-Reaction: the strongest is exactly 1, even if weak. All 0 in a quiet clip (our
            choice; the corpus has none).
    """

    clip_id: str
    subject: str
    kind: str
    affect: NDArray[np.float32]
    true_affect: NDArray[np.float32]
    labels: NDArray[np.float32]
    fps: float = FPS


def simulate_reactions(  # noqa: PLR0913 - each has a default
    count: int,
    *,
    seed: int,
    quiet_share: float = 0.0,
    short_share: float = 0.0,
    name: str = "simulated",
    looseness: Looseness | None = None,
    noise: ExtractorNoise | None = None,
    fps: float = FPS,
    recording: Recording | None = None,
) -> list[SimulatedClip]:
    """Simulate clips with Hume-Reaction's lengths and label marginals; the rest is our choice.

    The same seed gives bit-identical clips; a longer list starts with the shorter one. At
    another rate, the same people show the same reactions with the same labels and durations;
    talking, missed faces and noise are sampled anew at the same speed. None means the default.
    Raises ValueError if an argument is out of range: shares in [0, 1], `fps` in (0, 60], seed
    and count not negative.

    `quiet_share` is the share of clips without a reaction: half of them show one of `DISPLAYS`,
    such as a posed grin; the others are calm or talk. `short_share` is that of clips of 1 to
    10 s with the whole display. Both are 0 in the corpus. `recording` may cut some short clips
    from longer ones, down to one frame. `name` is the prefix of clip and subject names.
    """
    if count < 0 or seed < 0 or not 0 <= quiet_share <= 1 or not 0 <= short_share <= 1:
        raise ValueError(
            "count and seed must be at least 0, quiet_share and short_share in [0, 1]; "
            f"got {count}, {seed}, {quiet_share}, {short_share}"
        )
    if not 0 < fps <= MOST_FPS:
        raise ValueError(
            f"fps of simulated clips must be above 0 and at most {MOST_FPS:g}; got {fps}"
        )
    domain = Domain(
        "", looseness or Looseness(), noise or ExtractorNoise(), recording or Recording(), fps
    )
    clips: list[SimulatedClip] = []
    for block in range(-(-count // BLOCK)):
        clips += _simulate_block(block, seed, (quiet_share, short_share), name, domain)
    return clips[:count]


def hume_like_splits(
    seed: int,
    counts: tuple[int, int, int] = HUME_COUNTS,
    *,
    quiet_share: float = 0.0,
    short_share: float = 0.0,
    fps: float = FPS,
    domain: str | None = None,
    noise: ExtractorNoise | None = None,
) -> dict[str, list[SimulatedClip]]:
    """Simulate `train`, `validation` and `test`; splits and domains share no person.

    `counts` are Hume-Reaction's by default. Quiet clips are in every split, short ones in
    training, or in all if the domain says so. A `domain` of `DOMAINS` (None: the default) with
    its own rate ignores `fps`; one with measured errors needs `noise` from
    `noise_from_errors`, and others refuse it. Raises ValueError for an unknown domain or an
    argument out of range.
    """
    chosen = domain_named(domain)
    if chosen.needs_errors != (noise is not None):
        raise ValueError(
            f"simulated domain {domain}: an extractor's noise is given for a domain of measured "
            "errors, and only there"
        )
    # The seed includes the domain's name, so that domains have different people.
    seeds = np.random.SeedSequence(seed, spawn_key=tuple((domain or "").encode())).generate_state(3)
    splits = zip(("train", "validation", "test"), seeds, counts, strict=True)
    return {
        split: simulate_reactions(
            count,
            seed=int(split_seed),
            quiet_share=quiet_share,
            short_share=short_share if split == "train" or chosen.short_everywhere else 0.0,
            name=split,
            looseness=chosen.looseness,
            noise=noise or chosen.noise,
            fps=chosen.rate(fps),
            recording=chosen.recording,
        )
        for split, split_seed, count in splits
    }


def as_dataset(clips: list[SimulatedClip]) -> Dataset:
    """Convert clips of one rate into a data set with the columns of `records.clip_features`."""
    features = clip_features(len(REACTIONS))
    labels = np.array([clip.labels for clip in clips], np.float32).reshape(-1, len(REACTIONS))
    columns = {
        "clip_id": [clip.clip_id for clip in clips],
        "subject": [clip.subject for clip in clips],
        "kind": [clip.kind for clip in clips],
        "affect": affect_column([clip.affect for clip in clips], features),
        "labels": pa.FixedSizeListArray.from_arrays(labels.ravel(), len(REACTIONS)),
    }
    info = describe_simulated(clips[0].fps if clips else FPS)
    return Dataset(pa.table(columns, schema=features.arrow_schema), info=info)


def describe_simulated(fps: float) -> DatasetInfo:
    """Return the metadata of a data set of simulated clips."""
    description = (
        "Simulated, not recorded from people.\n"
        f"labels: {', '.join(REACTIONS)}\n"
        f"affect: {', '.join(affect_names())}\n"
        f"frames a second: {fps}"
    )
    return DatasetInfo(description=description, features=clip_features(len(REACTIONS)))


def _simulate_block(
    block: int, seed: int, shares: tuple[float, float], name: str, domain: Domain
) -> list[SimulatedClip]:
    """Simulate the N = `BLOCK` clips of one block, with T frames each before cutting."""
    looseness, noise, fps = domain.looseness, domain.noise, domain.fps
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, block)))
    # A separate generator for what only other domains have, so that default clips stay the same.
    events = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, block)))
    indices = range(block * BLOCK, (block + 1) * BLOCK)
    subjects = [index * PEOPLE // CLIPS for index in indices]
    people = sample_people(subjects, seed, looseness, noise)
    quiet_share, short_share = shares
    # A short clip is a faster clip: its length and all times shrink by one factor.
    pace = np.where(rng.random(BLOCK) < short_share, rng.uniform(0.08, 0.8, BLOCK), 1.0)  # (N,)
    happened = sample_happenings(pace, fps, domain.recording, events)
    pace, turn = happened.pace, happened.turn  # (N,), (N, T)
    has_face = _frames_with_face(happened, fps, domain.recording, rng)  # (N, T)
    labels = sample_labels(BLOCK, rng)  # (N, 7)
    quiet, talker = rng.random(BLOCK) < quiet_share, rng.random(BLOCK) < 0.5
    labels[quiet] = 0.0
    kinds = np.where(quiet, np.where(talker, "talking", "neutral"), "reaction").astype(object)
    poses = quiet & (events.random(BLOCK) < looseness.poses)
    kinds[poses] = events.choice(list(DISPLAYS), poses.sum())
    talks = np.where(quiet & ~poses, talker, rng.random(BLOCK) < looseness.talks)
    shown, units = show_reactions(
        labels, people, pace, fps, looseness, rng
    )  # (N, T, 7), (N, T, 17)
    smile = sample_masking_smile(shown, people, looseness, rng)  # (N, T)
    for display in DISPLAYS:
        rows = np.flatnonzero(kinds == display)
        units[rows] = show_display(display, people.unit_strength[rows], pace[rows], fps, events)
    looks = look_like(units[poses])
    speech = sample_speech(talks, fps, rng)  # (N, T, 17)
    for column in find_columns(12, 25):
        units[..., column] = combine_causes(units[..., column], smile)
    units = combine_causes(combine_causes(units, speech), sample_rest(people, fps, rng))
    true = compose_affect(shown, smile, units)  # (N, T, 26)
    true[poses, :, : looks.shape[-1]] = looks
    seen, bias = true, people.bias
    if turn.any():
        seen, bias = turn_away(true, people.bias, turn, noise, events)
    reported = report_affect(seen, speech[..., find_columns(25)], bias, noise, rng, fps)
    return [
        SimulatedClip(
            clip_id=f"{name}-{index:06d}",
            subject=f"{name}-person-{subject:04d}",
            kind=kinds[row],
            affect=reported[row, has_face[row]].astype(np.float32),  # (L, 26)
            true_affect=true[row, has_face[row]].astype(np.float32),  # (L, 26)
            labels=labels[row].astype(np.float32),
            fps=fps,
        )
        for row, (index, subject) in enumerate(zip(indices, subjects, strict=True))
    ]


# Recording ---------------------------------------------------------------------------------------


class Happenings(NamedTuple):
    """Events in N clips of at most T frames; none in a default recording."""

    pace: Array  # (N,) factor on the duration of displays
    kept: Mask  # (N, T) the part kept of a cut clip; all of any other
    turn: Array  # (N, T) rotation of the head, from 0 (frontal) to 1 (profile)
    lost: Mask  # (N, T) no face is found


def sample_happenings(
    pace: Array, fps: float, recording: Recording, rng: np.random.Generator
) -> Happenings:
    """Sample the events in N clips.

    `pace` is (N,) as in `show_reactions`, below 1 in short clips. The number of random values
    taken from `rng` does not depend on `fps`.
    """
    count = len(pace)
    is_cut = (pace < 1) & (rng.random(count) < recording.cut_share)
    kept = _cut_out(count, fps, recording, rng) | ~is_cut[:, None]
    turn = _head_turns(count, fps, recording, rng)
    lost = (turn > recording.lost_beyond) | _lost_stretches(count, fps, recording, rng)
    return Happenings(np.where(is_cut, 1.0, pace), kept, turn, lost)


def _cut_out(count: int, fps: float, recording: Recording, rng: np.random.Generator) -> Mask:
    """Return (N, T), True in the part kept of each clip; at least one frame.

    The logarithm of the length is uniform (our choice), so that some clips have one frame.
    """
    shortest_s, longest_s = recording.cut_s
    length_s = shortest_s * (longest_s / shortest_s) ** rng.random(count)  # (N,)
    start_s = rng.random(count) * (recording.shortest_s - length_s).clip(0)
    first = np.floor(start_s * fps)
    end = first + np.floor(length_s * fps).clip(1)
    frames = np.arange(len(list_frame_times(fps)))
    return (frames >= first[:, None]) & (frames < end[:, None])


def _head_turns(count: int, fps: float, recording: Recording, rng: np.random.Generator) -> Array:
    """Return (N, T) head turns; 0 faces the camera, and some heads turn away and back once."""
    furthest = rng.uniform(0.3, 1.0, count) * (rng.random(count) < recording.turns)
    lasts_s = rng.uniform(*recording.turn_s, count)
    start_s = rng.uniform(0, recording.shortest_s, count)
    done = (list_frame_times(fps) - start_s[:, None]) / lasts_s[:, None]  # 0 to 1 during the turn
    away = np.minimum(4 * done, 4 * (1 - done)).clip(0, 1)  # a quarter to turn, a quarter to return
    return furthest[:, None] * away


def _lost_stretches(count: int, fps: float, recording: Recording, rng: np.random.Generator) -> Mask:
    """Return (N, T), True during intervals without a face."""
    stretches = rng.poisson(recording.lost_stretches, count)[:, None]
    happens = np.arange(MOST_STRETCHES) < stretches  # (N, S)
    start_s = rng.uniform(0, LONGEST_S, happens.shape)
    end_s = start_s + rng.exponential(recording.lost_s, happens.shape)
    time_s = list_frame_times(fps)[:, None]  # (T, 1)
    lost = happens[:, None] & (time_s >= start_s[:, None]) & (time_s < end_s[:, None])  # (N, T, S)
    return np.asarray(lost.any(-1))


def _frames_with_face(
    happened: Happenings, fps: float, recording: Recording, rng: np.random.Generator
) -> Mask:
    """Return (N, T), True where a frame exists and its face is detected."""
    span_s = recording.longest_s - recording.shortest_s
    duration_s = recording.shortest_s + span_s * rng.beta(*recording.duration, BLOCK)
    frames = np.arange(len(list_frame_times(fps)))
    exists = (frames < np.floor(fps * duration_s * happened.pace)[:, None] + 1) & happened.kept
    often_missed = rng.random(BLOCK) < recording.missed_clips
    found_share = np.where(
        often_missed, rng.uniform(*recording.found_in_missed, BLOCK), recording.found_otherwise
    )
    # Sample at every rate, so that later random numbers do not depend on the rate.
    chance = rng.random((BLOCK, MAX_FRAMES))
    if fps != FPS:
        chance = rng.spawn(1)[0].random(exists.shape)
    has_face = exists & (chance < found_share[:, None]) & ~happened.lost
    faceless = ~has_face.any(1)  # the corpus would not contain such a clip
    has_face[faceless, exists.argmax(1)[faceless]] = True
    return has_face


# Labels ------------------------------------------------------------------------------------------


class Marginal(NamedTuple):
    """Distribution of one reaction's labels over clips."""

    mean: float
    std: float
    share_zero: float
    share_one: float


MARGINALS: dict[str, Marginal] = {
    "Adoration": Marginal(0.324, 0.363, 0.153, 0.140),
    "Amusement": Marginal(0.612, 0.370, 0.002, 0.350),
    "Anxiety": Marginal(0.348, 0.329, 0.056, 0.101),
    "Disgust": Marginal(0.243, 0.289, 0.030, 0.081),
    "Empathic-Pain": Marginal(0.213, 0.297, 0.182, 0.066),
    "Fear": Marginal(0.288, 0.342, 0.156, 0.086),
    "Surprise": Marginal(0.530, 0.322, 0.000, 0.176),
}
"""Hume-Reaction's training split, 15,806 clips: published aggregates, no data of the corpus.

The corpus divides each label vector by its maximum. The shares of exact 1 sum to 1, so each
clip has one label at 1.
"""

CORRELATION = np.array(
    [  # Ador   Amus   Anxi   Disg   Pain   Fear   Surp
        [1.00, 0.35, -0.25, -0.35, -0.05, -0.25, 0.05],
        [0.35, 1.00, -0.35, -0.25, -0.35, -0.35, 0.20],
        [-0.25, -0.35, 1.00, 0.15, 0.35, 0.60, 0.05],
        [-0.35, -0.25, 0.15, 1.00, 0.25, 0.15, 0.10],
        [-0.05, -0.35, 0.35, 0.25, 1.00, 0.30, 0.00],
        [-0.25, -0.35, 0.60, 0.15, 0.30, 1.00, 0.20],
        [0.05, 0.20, 0.05, 0.10, 0.00, 0.20, 1.00],
    ]
)
"""Correlations of the labels' Gaussian scores. Our choice: no joint table is published."""


def sample_labels(count: int, rng: np.random.Generator) -> Array:
    """Sample (count, 7) labels in [0, 1] with the published marginals; each row has exactly one 1.

    The dominant reaction follows the shares of 1. Every other label is 0 with its published
    share, otherwise Beta-distributed with the remaining mean and variance (our choice). A
    Gaussian copula, shifted by the dominant reaction, correlates them.
    """
    shares = np.array([marginal.share_one for marginal in MARGINALS.values()])
    dominant = rng.choice(len(REACTIONS), size=count, p=shares / shares.sum())  # (count,)
    noise = rng.standard_normal((count, len(REACTIONS))) @ np.linalg.cholesky(CORRELATION).T
    scores = CORRELATION[dominant] + noise  # (count, 7)
    labels = np.empty_like(scores)
    for column in range(len(REACTIONS)):
        # Uniform on [0, 1] over the clips in which another reaction is dominant.
        uniform = np.interp(scores[:, column], *_score_distribution(column))
        share_zero, values, quantiles = _label_distribution(column)
        above_zero = np.interp((uniform - share_zero) / (1 - share_zero), quantiles, values)
        labels[:, column] = np.where(uniform < share_zero, 0.0, above_zero)
    labels[np.arange(count), dominant] = 1.0
    return labels


@cache
def _score_distribution(column: int) -> tuple[Array, Array]:
    """Return scores and their cumulative distribution if another reaction is dominant.

    A mixture of unit normals, one per possible dominant reaction.
    """
    scores = np.linspace(-6, 6, 1201)
    marginals = list(MARGINALS.values())
    cumulative = np.zeros_like(scores)
    for other in range(len(REACTIONS)):
        if other != column:
            weight = marginals[other].share_one / (1 - marginals[column].share_one)
            distance = (scores - CORRELATION[other, column]) / sqrt(2)
            cumulative += weight * np.array([0.5 + erf(value) / 2 for value in distance])
    return scores, cumulative


@cache
def _label_distribution(column: int) -> tuple[float, Array, Array]:
    """Return share of 0, values and quantiles of the Beta if another reaction is dominant."""
    mean, std, share_zero, share_one = list(MARGINALS.values())[column]
    share_between = 1 - share_zero - share_one
    # E[x] and E[x^2] are published: subtract the ones, divide by the share between 0 and 1.
    beta_mean = (mean - share_one) / share_between
    beta_variance = (std**2 + mean**2 - share_one) / share_between - beta_mean**2
    concentration = beta_mean * (1 - beta_mean) / beta_variance - 1  # a + b
    a, b = beta_mean * concentration, (1 - beta_mean) * concentration
    values = 1 / (1 + np.exp(-np.linspace(-30, 30, 6001)))
    density = values**a * (1 - values) ** b  # over logits, which is smooth where a or b is below 1
    quantiles = np.cumsum(density) / density.sum()
    values = values.clip(1e-4, 1 - 1e-4)  # keep float32 from rounding to 0 or 1
    return share_zero / (1 - share_one), values, quantiles
