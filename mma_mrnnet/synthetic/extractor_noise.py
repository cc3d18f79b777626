"""Simulate an extractor's report of a face: biases, noise, confusions."""

from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mma_mrnnet.model.labels import (
    ACTION_UNITS,
    EXPRESSIONS,
    VALENCE_AROUSAL,
    action_unit_name,
    presence_target,
)
from mma_mrnnet.model.priors import action_unit_prior
from mma_mrnnet.results import ExtractorErrors

Array = NDArray[np.float64]
Each = float | tuple[float, ...]  # one number for all channels of a kind, or one per channel

LANDMARK_REACH: dict[int, float] = {
    **{1: 0.8, 2: 0.8, 4: 0.85, 5: 0.3, 7: 0.65, 10: 0.75},
    **{12: 0.95, 17: 0.7, 20: 0.5, 24: 0.5, 25: 1.0, 26: 0.65},
}
"""What a landmark model's scale reads from a unit at full strength; units not listed reach 1.

Our choice, between its readings of made faces at full strength and of photos: half of the scale is
much for some units (eyes wide, lips pressed) and little for others (smile, lips apart).
"""
LEAST_TARGET = 0.02
"""Targets nearer to 0 or 1 count as this far from it, since their log-odds are endless."""

_CHANNEL_GROUPS = (len(VALENCE_AROUSAL), len(VALENCE_AROUSAL) + len(EXPRESSIONS))


@dataclass(frozen=True)
class ExtractorNoise:
    """Errors of an extractor's report.

    All defaults are our choice; `noise_from_errors` replaces them by measurements. Biases and
    noises are standard deviations: of valence and arousal in their own unit, of other channels
    in logits. By default, units are reported as probabilities of presence: with sensitivity 1,
    a unit of intensity 0.4 with probability 0.5, as in `labels.presence_target`.
    """

    graded_units: bool = False
    """Units were learnt as graded values, as in `ExtractorErrors`; see `unit_evidence`."""
    unit_floor: Each = -3.2
    """Logit of a unit at rest: probability 0.04. Of a graded unit: logit at output 0.5."""
    unit_slope: Each = 8.0
    """Difference in logits between full strength and rest; factor of a graded unit's log-odds."""
    sensitivity: tuple[float, ...] = (
        *(0.85, 0.85, 0.85, 0.80, 0.90, 0.75, 0.75, 0.75, 0.70),
        *(1.00, 0.65, 0.70, 0.65, 0.60, 0.65, 1.00, 0.90),
    )
    """Detected share of each unit's intensity, in the order of `ACTION_UNITS`."""
    unit_bias: Each = 0.5
    unit_noise: Each = 0.5
    cross_talk: tuple[tuple[int, int, float], ...] = (
        *((6, 12, 0.15), (12, 6, 0.25), (4, 7, 0.20), (7, 4, 0.10), (25, 26, 0.20), (26, 25, 0.25)),
        *((9, 10, 0.25), (10, 9, 0.20), (1, 2, 0.20), (2, 1, 0.15), (6, 7, 0.20), (12, 25, 0.10)),
    )
    """(unit shown, unit detected in addition, share of its intensity)."""
    logit_cross_talk: tuple[tuple[int, int, float], ...] = ()
    """(unit shown, unit whose report changes, logits at full strength)."""
    confusion: tuple[tuple[str, str, float], ...] = (
        *(("fear", "surprise", 0.25), ("surprise", "fear", 0.15)),
        *(("anger", "disgust", 0.20), ("disgust", "anger", 0.20)),
        *(("sadness", "neutral", 0.30), ("neutral", "sadness", 0.02)),
    )
    """(expression shown, expression detected instead, share that moves)."""
    expression_logits: tuple[tuple[float, ...], ...] | None = None
    """(7, 7) logits of each full expression; replaces `confusion` and the floor."""
    expression_floor: float = 0.015
    """Added to each expression's probability before the logarithm, to avoid 0."""
    expression_bias: Each = 0.4
    expression_noise: Each = 0.4
    speech_seen_as: tuple[tuple[str, float], ...] = (
        ("fear", 0.5),
        ("surprise", 1.0),
        ("disgust", 0.6),
    )
    """(expression, logits added by a mouth wide open in speech)."""
    speech_moves: tuple[float, float] = (0.0, 0.0)
    """Effect of a mouth wide open in speech on valence and arousal."""
    valence_arousal_gain: Each = 0.8
    valence_arousal_offset: Each = 0.0
    valence_arousal_bias: Each = 0.08
    valence_arousal_noise: Each = 0.08
    unsupervised_units: tuple[int, ...] = (11, 23)
    """Units without training labels: reported as the prior predicts."""
    unsupervised_noise: float = 0.01
    """In probability."""
    memory: float = 0.7
    """AR(1) coefficient of each noise over half a second."""
    bad_frames: float = 0.02
    """Share of frames in which the report is unrelated to the face."""
    turned_fade: float = 0.6
    """Share of a display hidden when the head is in profile."""
    turned_bias: float = 1.5
    """Error of each channel in profile, in standard deviations of its noise."""


def sample_bias(noise: ExtractorNoise, rng: np.random.Generator) -> Array:
    """Sample (26,) an extractor's bias for one person, in the unit of each channel."""
    scales = _by_channel(noise.valence_arousal_bias, noise.expression_bias, noise.unit_bias)
    return scales * rng.standard_normal(len(scales))


def turn_away(
    true_affect: Array, bias: Array, turn: Array, noise: ExtractorNoise, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return the visible affect of turned faces and the extractor's bias, (N, T, 26) each.

    Displays become paler and more neutral; the bias is for `report_affect` and grows with
    `turn`, (N, T) in [0, 1] from frontal to profile. The given `bias` is (N, 26).
    """
    seen = true_affect * (1 - noise.turned_fade * turn[..., None])
    neutral = len(VALENCE_AROUSAL) + EXPRESSIONS.index("neutral")
    seen[..., neutral] += noise.turned_fade * turn  # expressions still sum to 1
    scales = _by_channel(noise.valence_arousal_noise, noise.expression_noise, noise.unit_noise)
    error = noise.turned_bias * scales * rng.standard_normal(bias.shape)  # (N, 26)
    return seen, bias[:, None] + turn[..., None] * error[:, None]


def _by_channel(valence_arousal: Each, expressions: Each, units: Each) -> Array:
    """Return (26,) numbers, one per channel."""
    sizes = (len(VALENCE_AROUSAL), len(EXPRESSIONS), len(ACTION_UNITS))
    pairs = zip((valence_arousal, expressions, units), sizes, strict=True)
    return np.concatenate([np.broadcast_to(each, size) for each, size in pairs])


def report_affect(
    true_affect: Array,
    speech: Array,
    bias: Array,
    noise: ExtractorNoise,
    rng: np.random.Generator,
    fps: float = 2.0,
) -> Array:
    """Return (N, T, 26) an extractor's report: affect in [-1, 1], then probabilities.

    `true_affect` is (N, T, 26) with units as intensities; `speech` is (N, T, 1) in [0, 1], how
    wide speech opens the mouth; `bias` is (N, 26), or (N, T, 26) if it changes within a clip.
    """
    clips, frames, channels = true_affect.shape
    bad = rng.random((clips, frames, 1)) < noise.bad_frames
    steady = sample_autoregressive((clips, frames, channels), noise.memory, fps, rng)
    noises = np.where(bad, 4 * rng.standard_normal(steady.shape), steady)  # standard deviations
    shown = np.split(true_affect * ~bad, _CHANNEL_GROUPS, axis=-1)
    bias = bias[:, None] if bias.ndim == 2 else bias
    offset = np.split(np.broadcast_to(bias, noises.shape), _CHANNEL_GROUPS, axis=-1)
    jitter = np.split(noises, _CHANNEL_GROUPS, axis=-1)

    scales = (noise.valence_arousal_noise, noise.expression_noise, noise.unit_noise)
    error = [
        one + np.array(scale) * other
        for one, scale, other in zip(offset, scales, jitter, strict=True)
    ]
    by_speech = speech * np.array(noise.speech_moves)  # (N, T, 2)
    moved = np.array(noise.valence_arousal_offset) + by_speech
    valence_arousal = np.array(noise.valence_arousal_gain) * shown[0] + moved + error[0]
    expressions = _report_expressions(shown[1], speech, error[1], noise)
    units = _report_units(shown[2], error[2], noise)
    prior_only = find_columns(*noise.unsupervised_units)
    prior = action_unit_prior(ACTION_UNITS).double().numpy()  # (7, 17)
    expected = (expressions @ prior)[..., prior_only]  # (N, T, 2)
    unsupervised = expected + noise.unsupervised_noise * jitter[2][..., prior_only]
    units[..., prior_only] = unsupervised.clip(1e-3, 1)
    return np.concatenate([valence_arousal.clip(-1, 1), expressions, units], axis=-1)


def _report_expressions(shown: Array, speech: Array, error: Array, noise: ExtractorNoise) -> Array:
    if noise.expression_logits is None:
        logits = _confuse(shown, noise) + error  # (N, T, 7)
    else:  # a mixture of expressions gets interpolated logits
        logits = shown @ np.array(noise.expression_logits) + error
    for expression, raised in noise.speech_seen_as:
        logits[..., [EXPRESSIONS.index(expression)]] += raised * speech
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def _confuse(shown: Array, noise: ExtractorNoise) -> Array:
    """Return (N, T, 7) expression logits, some of them confused."""
    confusion = np.eye(len(EXPRESSIONS))
    for expression, seen, share in noise.confusion:
        row = EXPRESSIONS.index(expression)
        confusion[row, row] -= share
        confusion[row, EXPRESSIONS.index(seen)] += share
    return np.log(shown @ confusion + noise.expression_floor)


def _report_units(shown: Array, error: Array, noise: ExtractorNoise) -> Array:
    sensed = shown * np.array(noise.sensitivity)  # (N, T, 17)
    seen = sensed.copy()
    for unit, also, share in noise.cross_talk:
        seen[..., find_columns(also)] = combine_causes(
            seen[..., find_columns(also)], share * shown[..., find_columns(unit)]
        )
    evidence = unit_evidence(seen) if noise.graded_units else seen
    logits = np.array(noise.unit_floor) + np.array(noise.unit_slope) * evidence + error
    for unit, moves, added in noise.logit_cross_talk:
        logits[..., find_columns(moves)] += added * sensed[..., find_columns(unit)]
    return 1 / (1 + np.exp(-logits))


def unit_evidence(intensity: Array) -> Array:
    """Return what a graded unit's logit is linear in: the log-odds of its target.

    `intensity` is in [0, 1]; the target is that of training, `labels.presence_target`. Errors
    have about the same size in logits for faint and strong units, but not in the output itself.
    """
    target = presence_target(torch.from_numpy(intensity)).numpy()
    kept = target.clip(LEAST_TARGET, 1 - LEAST_TARGET)
    return np.asarray(np.log(kept / (1 - kept)), dtype=np.float64)


def noise_from_errors(errors: dict[str, ExtractorErrors]) -> ExtractorNoise:
    """Build the noise of an extractor from measured errors, as in `training.extractor_errors`.

    Prefers errors on made-up faces, because their labels are true by construction, to those of
    all rows. Units without a measurement are reported as the prior predicts. Everything else
    without a measurement keeps its default, including memory, bad frames and turned heads,
    which still pictures cannot show. A graded unit at full strength reaches `LANDMARK_REACH`.

    Raises:
        ValueError: no action unit was measured.
    """
    measured = errors.get("made") or errors["all"]
    units = [measured.action_units.get(action_unit_name(unit)) for unit in ACTION_UNITS]
    if not any(units):
        raise ValueError(
            "errors of the extractor: no action unit was measured; at least 20 rows of varying "
            "labels do"
        )
    default = ExtractorNoise()

    def each(key: str, otherwise: Each) -> tuple[float, ...]:
        defaults = np.broadcast_to(otherwise, len(units)).tolist()
        pairs = zip(units, defaults, strict=True)
        return tuple(value if unit is None else getattr(unit, key) for unit, value in pairs)

    numbers = {action_unit_name(unit): unit for unit in ACTION_UNITS}
    cross_talk = [
        (numbers[name], unit, added)
        for unit, found in zip(ACTION_UNITS, units, strict=True)
        for name, added in (found.cross_talk if found else {}).items()
        if name in numbers
    ]
    reach = LANDMARK_REACH if measured.graded_units else {}
    return replace(
        default,
        graded_units=measured.graded_units,
        unit_floor=each("floor", default.unit_floor),
        unit_slope=each("slope", default.unit_slope),
        # For the rest the slope includes it.
        sensitivity=tuple(reach.get(unit, 1.0) for unit in ACTION_UNITS),
        unit_bias=each("person", default.unit_bias),
        unit_noise=each("frame", default.unit_noise),
        cross_talk=(),
        logit_cross_talk=tuple(cross_talk),
        unsupervised_units=tuple(
            unit for unit, found in zip(ACTION_UNITS, units, strict=True) if found is None
        ),
        **_measured_expressions(measured),
        **_measured_values(measured),
    )


def _measured_expressions(measured: ExtractorErrors) -> dict[str, Any]:
    """Return the measured fields for expressions and speech."""
    fields: dict[str, Any] = {}
    if expressions := measured.expressions:
        fields["expression_logits"] = tuple(map(tuple, expressions.mean_logits_rows_are_labels))
        fields["expression_bias"] = tuple(expressions.person[name] for name in EXPRESSIONS)
        fields["expression_noise"] = tuple(expressions.frame[name] for name in EXPRESSIONS)
    if talkers := measured.neutral_talkers:
        fields["speech_seen_as"] = tuple(talkers.logits_added.items())
        fields["speech_moves"] = tuple(
            talkers.valence_arousal_added[name] for name in VALENCE_AROUSAL
        )
    return fields


def _measured_values(measured: ExtractorErrors) -> dict[str, Any]:
    """Return the measured fields for valence and arousal."""
    values = [measured.valence_arousal[name] for name in VALENCE_AROUSAL]
    if None in values:
        return {}
    keys = {"gain": "gain", "offset": "offset", "bias": "person", "noise": "frame"}
    return {
        f"valence_arousal_{name}": tuple(getattr(value, key) for value in values)
        for name, key in keys.items()
    }


def find_columns(*units: int) -> list[int]:
    """Return the indices of action units in `ACTION_UNITS`."""
    return [ACTION_UNITS.index(unit) for unit in units]


def combine_causes(one: Array, other: Array) -> Array:
    """Combine the strengths of two causes: 1 - (1 - one)(1 - other)."""
    return 1 - (1 - one) * (1 - other)


def sample_autoregressive(
    shape: tuple[int, ...], memory: float, fps: float, rng: np.random.Generator
) -> Array:
    """Sample AR(1) noise of unit variance along axis 1 of `shape`, (N, T, ...).

    `memory` is the correlation over half a second, in [0, 1].
    """
    kept = memory ** (2 / fps)  # from one frame to the next
    steps = rng.standard_normal(shape)
    for frame in range(1, shape[1]):
        steps[:, frame] = kept * steps[:, frame - 1] + sqrt(1 - kept**2) * steps[:, frame]
    return steps
