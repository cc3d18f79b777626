"""What an extractor would report of a simulated face: biases, noise and confusions, all our choice."""

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, VALENCE_AROUSAL
from mma_mrnnet.model.priors import action_unit_prior

Array = NDArray[np.float64]

_CHANNEL_GROUPS = (len(VALENCE_AROUSAL), len(VALENCE_AROUSAL) + len(EXPRESSIONS))


@dataclass(frozen=True)
class ExtractorNoise:
    """How an extractor's report differs from the face.

    Every number is our choice, to be replaced by measured errors. Biases and noises are standard deviations:
    of valence and arousal in their own unit, otherwise in logits. A unit of intensity 0.4 is reported at
    probability 0.5 where sensitivity is 1, as `labels.presence_target` has it.
    """

    unit_floor: float = -3.2
    """Logit that a unit at rest is reported with: probability 0.04."""
    unit_slope: float = 8.0
    """Logits from a unit at rest to its full strength."""
    sensitivity: tuple[float, ...] = (
        *(0.85, 0.85, 0.85, 0.80, 0.90, 0.75, 0.75, 0.75, 0.70),
        *(1.00, 0.65, 0.70, 0.65, 0.60, 0.65, 1.00, 0.90),
    )
    """Share of each unit's intensity that is seen, in the order of `ACTION_UNITS`."""
    unit_bias: float = 0.5
    unit_noise: float = 0.5
    cross_talk: tuple[tuple[int, int, float], ...] = (
        *((6, 12, 0.15), (12, 6, 0.25), (4, 7, 0.20), (7, 4, 0.10), (25, 26, 0.20), (26, 25, 0.25)),
        *((9, 10, 0.25), (10, 9, 0.20), (1, 2, 0.20), (2, 1, 0.15), (6, 7, 0.20), (12, 25, 0.10)),
    )
    """(unit shown, unit that is seen as well, share of its intensity)."""
    confusion: tuple[tuple[str, str, float], ...] = (
        *(("fear", "surprise", 0.25), ("surprise", "fear", 0.15)),
        *(("anger", "disgust", 0.20), ("disgust", "anger", 0.20)),
        *(("sadness", "neutral", 0.30), ("neutral", "sadness", 0.02)),
    )
    """(expression shown, expression seen instead, share that moves)."""
    expression_floor: float = 0.015
    """Added to each expression's probability before the logarithm, so that none is ever 0."""
    expression_bias: float = 0.4
    expression_noise: float = 0.4
    speech_seen_as: tuple[tuple[str, float], ...] = (("fear", 0.5), ("surprise", 1.0), ("disgust", 0.6))
    """(expression, logits that a mouth wide open in speech adds to it)."""
    valence_arousal_gain: float = 0.8
    valence_arousal_bias: float = 0.08
    valence_arousal_noise: float = 0.08
    unsupervised_units: tuple[int, ...] = (11, 23)
    """Units that no label reaches in training: reported as the prior expects them from the expressions."""
    unsupervised_noise: float = 0.01
    """In probability."""
    memory: float = 0.7
    """AR(1) coefficient of each noise, from one moment to that half a second later."""
    bad_frames: float = 0.02
    """Share of frames in which the report has nothing to do with the face."""


def draw_bias(noise: ExtractorNoise, rng: np.random.Generator) -> Array:
    """(26,) how the extractor misreads one person in every clip, in the unit of each channel's noise."""
    scales = (noise.valence_arousal_bias, noise.expression_bias, noise.unit_bias)
    sizes = (len(VALENCE_AROUSAL), len(EXPRESSIONS), len(ACTION_UNITS))
    return np.repeat(scales, sizes) * rng.standard_normal(sum(sizes))


def report_affect(
    true_affect: Array,
    speech: Array,
    bias: Array,
    noise: ExtractorNoise,
    rng: np.random.Generator,
    fps: float = 2.0,
) -> Array:
    """What an extractor would report of the faces.

    Args:
        true_affect: (N, T, 26), action units as intensities.
        speech: (N, T, 1) in [0, 1], how wide speech opens the mouth.
        bias: (N, 26) of the clips' people.
        noise: the numbers.
        rng: source of the noise.
        fps: frames a second.

    Returns:
        (N, T, 26): values in [-1, 1], probabilities that sum to 1, probabilities of presence.
    """
    clips, frames, channels = true_affect.shape
    bad = rng.random((clips, frames, 1)) < noise.bad_frames
    steady = autoregressive((clips, frames, channels), noise.memory, fps, rng)
    jitter = np.where(bad, 4 * rng.standard_normal(steady.shape), steady)  # in standard deviations
    shown = np.split(true_affect * ~bad, _CHANNEL_GROUPS, axis=-1)
    offset = np.split(np.broadcast_to(bias[:, None], jitter.shape), _CHANNEL_GROUPS, axis=-1)
    jitter = np.split(jitter, _CHANNEL_GROUPS, axis=-1)

    valence_arousal = noise.valence_arousal_gain * shown[0] + offset[0] + noise.valence_arousal_noise * jitter[0]
    expressions = _report_expressions(shown[1], speech, offset[1] + noise.expression_noise * jitter[1], noise)
    units = _report_units(shown[2], offset[2] + noise.unit_noise * jitter[2], noise)
    prior_only = columns_of(*noise.unsupervised_units)
    expected = (expressions @ action_unit_prior(ACTION_UNITS).double().numpy())[..., prior_only]  # (N, T, 2)
    units[..., prior_only] = (expected + noise.unsupervised_noise * jitter[2][..., prior_only]).clip(1e-3, 1)
    return np.concatenate([valence_arousal.clip(-1, 1), expressions, units], axis=-1)


def _report_expressions(shown: Array, speech: Array, error: Array, noise: ExtractorNoise) -> Array:
    confusion = np.eye(len(EXPRESSIONS))
    for expression, seen, share in noise.confusion:
        row = EXPRESSIONS.index(expression)
        confusion[row, row] -= share
        confusion[row, EXPRESSIONS.index(seen)] += share
    logits = np.log(shown @ confusion + noise.expression_floor) + error  # (N, T, 7)
    for expression, raised in noise.speech_seen_as:
        logits[..., [EXPRESSIONS.index(expression)]] += raised * speech
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def _report_units(shown: Array, error: Array, noise: ExtractorNoise) -> Array:
    seen = shown * np.array(noise.sensitivity)  # (N, T, 17)
    for unit, also, share in noise.cross_talk:
        seen[..., columns_of(also)] = either(seen[..., columns_of(also)], share * shown[..., columns_of(unit)])
    return 1 / (1 + np.exp(-(noise.unit_floor + noise.unit_slope * seen + error)))


def columns_of(*units: int) -> list[int]:
    """Places of the action units in `ACTION_UNITS`."""
    return [ACTION_UNITS.index(unit) for unit in units]


def either(one: Array, other: Array) -> Array:
    """Strength of two causes together: 1 - (1 - one)(1 - other)."""
    return 1 - (1 - one) * (1 - other)


def autoregressive(shape: tuple[int, ...], memory: float, fps: float, rng: np.random.Generator) -> Array:
    """AR(1) noise of unit variance along axis 1.

    Args:
        shape: (N, T, ...).
        memory: correlation of two moments half a second apart, in [0, 1].
        fps: frames a second.
        rng: source of the noise.
    """
    kept = memory ** (2 / fps)  # from one frame to the next
    steps = rng.standard_normal(shape)
    for frame in range(1, shape[1]):
        steps[:, frame] = kept * steps[:, frame - 1] + sqrt(1 - kept**2) * steps[:, frame]
    return steps
