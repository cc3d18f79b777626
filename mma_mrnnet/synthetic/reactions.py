"""Simulated clips shaped like Hume-Reaction's: people, reactions in time, faces that loosely follow them.

Nothing here was recorded from people. Labels are drawn in `simulated_labels.py`, faces in `simulated_display.py`, what
happens while they are recorded in `simulated_recording.py`, the extractor's errors in `simulated_extractor.py`; other
corpora than the usual one are in `simulated_domains.py`. Faces as pixels are in `drawn_faces.py`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetInfo
from numpy.typing import NDArray

from mma_mrnnet.features.records import affect_column, clip_features
from mma_mrnnet.model.labels import REACTIONS, affect_names
from mma_mrnnet.results import Provenance
from mma_mrnnet.synthetic.display import (
    ASSOCIATIONS,
    CIRCUMPLEX,
    NEAREST_EXPRESSIONS,
    Looseness,
    affect_of,
    display,
    frame_times,
    masking_smile,
    people_of,
    resting_units,
    speech_units,
)
from mma_mrnnet.synthetic.domains import DOMAINS, FPS, Domain, Recording, domain_named
from mma_mrnnet.synthetic.extractor_noise import (
    ExtractorNoise,
    columns_of,
    either,
    report_affect,
    turned_away,
)
from mma_mrnnet.synthetic.labels import draw_labels
from mma_mrnnet.synthetic.recording import Happenings, happenings

__all__ = [
    "ASSOCIATIONS",
    "CIRCUMPLEX",
    "DOMAINS",
    "FPS",
    "NEAREST_EXPRESSIONS",
    "Domain",
    "ExtractorNoise",
    "Looseness",
    "Recording",
    "SimulatedClip",
    "as_dataset",
    "hume_like_splits",
    "simulate_reactions",
    "simulated_info",
]

PROVENANCE = Provenance("simulated", "apache-2.0", made_up=True, labels="simulated")

Array = NDArray[np.float64]
Kind = Literal["reaction", "neutral", "talking"]

MAX_FRAMES = 30
"""Frames of the longest clip at `FPS`."""
MOST_FPS = 60.0
"""Beyond it clips would only fill memory: their affect hardly changes between two frames."""
BLOCK = 256
"""Clips simulated at once; always whole, so that a clip does not depend on how many were asked for."""

PEOPLE, CLIPS = 2222, 25067
"""People and clips of Hume-Reaction: a person has about eleven clips."""
HUME_COUNTS = (15806, 4657, 4604)
"""Clips of its training, validation and test splits."""


@dataclass(frozen=True)
class SimulatedClip:
    """One simulated clip at `fps` frames a second, those without a detected face left out.

    Attributes:
        clip_id: unique within one call and one name.
        subject: the simulated person.
        kind: `reaction`, or a quiet clip: `neutral` (calm) or `talking` (calm and talking).
        affect: (L, 26) float32 as an extractor would report it, channels as `labels.affect_names()`.
        true_affect: (L, 26) float32, the face's true state; its units are intensities, not probabilities.
        labels: (7,) float32 in the order of `REACTIONS`. Relative within a clip, as Hume-Reaction's are:
            the strongest reaction is exactly 1 however faint it was. All 0 in a quiet clip (our choice; the
            corpus has none).
        fps: frames a second.
    """

    clip_id: str
    subject: str
    kind: Kind
    affect: NDArray[np.float32]
    true_affect: NDArray[np.float32]
    labels: NDArray[np.float32]
    fps: float = FPS


def simulate_reactions(  # noqa: PLR0913 - a corpus has this many sides, each with a default
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
    """Clips shaped like Hume-Reaction's: its published lengths and label marginals, the rest our choice.

    The same seed gives the same clips bit for bit, and a longer list starts with the shorter one. At another rate the
    same people show the same reactions, with the same labels and for as long; talking, missed faces and noise are drawn
    anew, as fast or slow as before.

    Args:
        count: how many clips, at least 0.
        seed: not negative.
        quiet_share: share of clips without any reaction, in [0, 1]; the corpus's shape is 0.
        short_share: share of clips of 1 to 10 s, the whole display within them, in [0, 1]; the corpus has none. A
            recording may have a part of them cut out of longer ones instead, down to one frame.
        name: first part of clip and subject names.
        looseness: how loosely faces follow reports; None for the defaults.
        noise: how the extractor errs; None for the defaults.
        fps: frames a second, above 0 and at most 60; a clip has up to 15 s of them.
        recording: lengths and missed faces; None for the defaults.

    Raises:
        ValueError: an argument out of range.
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
    """`train`, `validation` and `test` lists of simulated clips; no person is in two of them, nor in two domains.

    Args:
        seed: not negative.
        counts: clips of train, validation and test; Hume-Reaction's by default.
        quiet_share: share of quiet clips in every split.
        short_share: share of short clips in the training split; the others keep the corpus's lengths, unless the
            domain has short clips everywhere.
        fps: frames a second, unless the domain has a rate of its own.
        domain: one of `DOMAINS`; None for the usual one.
        noise: from `noise_from_errors`, for a domain that repeats measured errors; for no other.

    Raises:
        ValueError: no such domain, noise where it does not belong or none where it is needed, or another argument out
            of range.
    """
    chosen = domain_named(domain)
    if chosen.needs_errors != (noise is not None):
        raise ValueError(
            f"simulated domain {domain}: an extractor's noise is given for a domain of measured errors, and only there"
        )
    # The domain's name is mixed in, so that its people are others even at the same seed.
    seeds = np.random.SeedSequence(seed, spawn_key=tuple((domain or "").encode())).generate_state(3)
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
        for split, split_seed, count in zip(
            ("train", "validation", "test"), seeds, counts, strict=True
        )
    }


def as_dataset(clips: list[SimulatedClip]) -> Dataset:
    """The clips, all at one rate, as a data set: the columns of `records.clip_features`.

    Names of the label and affect columns stand in `info.description`, one line each.
    """
    features = clip_features(len(REACTIONS))
    labels = np.array([clip.labels for clip in clips], np.float32).reshape(-1, len(REACTIONS))
    columns = {
        "clip_id": [clip.clip_id for clip in clips],
        "subject": [clip.subject for clip in clips],
        "kind": [clip.kind for clip in clips],
        "affect": affect_column([clip.affect for clip in clips], features),
        "labels": pa.FixedSizeListArray.from_arrays(labels.ravel(), len(REACTIONS)),
    }
    info = simulated_info(clips[0].fps if clips else FPS)
    return Dataset(pa.table(columns, schema=features.arrow_schema), info=info)


def simulated_info(fps: float) -> DatasetInfo:
    """What a data set of simulated clips says of itself: that nobody was recorded, names of the columns, its rate."""
    description = (
        "Simulated, not recorded from people.\n"
        f"labels: {', '.join(REACTIONS)}\naffect: {', '.join(affect_names())}\nframes a second: {fps}"
    )
    return DatasetInfo(description=description, features=clip_features(len(REACTIONS)))


def _simulate_block(
    block: int, seed: int, shares: tuple[float, float], name: str, domain: Domain
) -> list[SimulatedClip]:
    """The N = `BLOCK` clips of one block, T frames each until the faceless are cut out."""
    looseness, noise, fps = domain.looseness, domain.noise, domain.fps
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0, block)))
    # What a usual recording lacks has a generator of its own: without it no clip changes.
    events = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, block)))
    indices = range(block * BLOCK, (block + 1) * BLOCK)
    subjects = [index * PEOPLE // CLIPS for index in indices]
    people = people_of(subjects, seed, looseness, noise)
    quiet_share, short_share = shares
    # A short clip is a clip played faster: its length and all its times shrink by one factor.
    pace = np.where(rng.random(BLOCK) < short_share, rng.uniform(0.08, 0.8, BLOCK), 1.0)  # (N,)
    happened = happenings(pace, fps, domain.recording, events)
    pace, turn = happened.pace, happened.turn  # (N,), (N, T)
    has_face = _frames_with_face(happened, fps, domain.recording, rng)  # (N, T)
    labels = draw_labels(BLOCK, rng)  # (N, 7)
    quiet, talker = rng.random(BLOCK) < quiet_share, rng.random(BLOCK) < 0.5
    labels[quiet] = 0.0
    talks = np.where(quiet, talker, rng.random(BLOCK) < looseness.talks)
    shown, units = display(labels, people, pace, fps, looseness, rng)  # (N, T, 7), (N, T, 17)
    smile = masking_smile(shown, people, looseness, rng)  # (N, T)
    speech = speech_units(talks, fps, rng)  # (N, T, 17)
    for column in columns_of(12, 25):
        units[..., column] = either(units[..., column], smile)
    units = either(either(units, speech), resting_units(people, fps, rng))
    true = affect_of(shown, smile, units)  # (N, T, 26)
    seen, bias = (
        turned_away(true, people.bias, turn, noise, events) if turn.any() else (true, people.bias)
    )
    reported = report_affect(seen, speech[..., columns_of(25)], bias, noise, rng, fps)
    kinds = np.where(quiet, np.where(talks, "talking", "neutral"), "reaction")
    return [
        SimulatedClip(
            clip_id=f"{name}-{index:06d}",
            subject=f"{name}-person-{subject:04d}",
            kind=str(kinds[row]),
            affect=reported[row, has_face[row]].astype(np.float32),  # (L, 26)
            true_affect=true[row, has_face[row]].astype(np.float32),  # (L, 26)
            labels=labels[row].astype(np.float32),
            fps=fps,
        )
        for row, (index, subject) in enumerate(zip(indices, subjects, strict=True))
    ]


def _frames_with_face(
    happened: Happenings, fps: float, recording: Recording, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(N, T) True where a frame exists and its face was found."""
    span_s = recording.longest_s - recording.shortest_s
    duration_s = recording.shortest_s + span_s * rng.beta(*recording.duration, BLOCK)
    frames = np.arange(len(frame_times(fps)))
    exists = (frames < np.floor(fps * duration_s * happened.pace)[:, None] + 1) & happened.kept
    often_missed = rng.random(BLOCK) < recording.missed_clips
    found_share = np.where(
        often_missed, rng.uniform(*recording.found_in_missed, BLOCK), recording.found_otherwise
    )
    chance = rng.random((BLOCK, MAX_FRAMES))
    if (
        fps != FPS
    ):  # the above is drawn at every rate, so that what is drawn later does not depend on it
        chance = rng.spawn(1)[0].random(exists.shape)
    has_face = exists & (chance < found_share[:, None]) & ~happened.lost
    faceless = ~has_face.any(1)  # such a clip would not be in the corpus
    has_face[faceless, exists.argmax(1)[faceless]] = True
    return has_face
