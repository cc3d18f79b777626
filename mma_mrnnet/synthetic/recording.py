"""What happens to a simulated recording: heads that turn away, stretches without a face, clips cut out of others."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mma_mrnnet.synthetic.display import LONGEST_S, frame_times
from mma_mrnnet.synthetic.domains import Recording

Array = NDArray[np.float64]

MOST_STRETCHES = 8
"""A clip has no more of them without a face."""


class Happenings(NamedTuple):
    """What happens in N clips of T frames at most; nothing in a usual recording."""

    pace: Array  # (N,) share of their usual time that displays take
    kept: NDArray[
        np.bool_
    ]  # (N, T) the part that a clip cut out of a longer one keeps; all of any other
    turn: Array  # (N, T) how far the head is turned, from 0 (frontal) to 1 (profile)
    lost: NDArray[np.bool_]  # (N, T) no face is found


def happenings(
    pace: Array, fps: float, recording: Recording, rng: np.random.Generator
) -> Happenings:
    """What happens in N clips.

    Args:
        pace: (N,) as in `display`; below 1 in short clips.
        fps: frames a second.
        recording: how often it happens.
        rng: source of all chance; how much is drawn does not depend on `fps`.
    """
    is_cut = (pace < 1) & (rng.random(len(pace)) < recording.cut_share)
    kept = _cut_out(len(pace), fps, recording, rng) | ~is_cut[:, None]
    turn = _head_turns(len(pace), fps, recording, rng)
    lost = (turn > recording.lost_beyond) | _lost_stretches(len(pace), fps, recording, rng)
    return Happenings(np.where(is_cut, 1.0, pace), kept, turn, lost)


def _cut_out(
    count: int, fps: float, recording: Recording, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(N, T) True in the part of a longer clip that each is; one frame at least.

    Lengths are spread evenly over their logarithm (our choice), so that clips of one frame are among them.
    """
    shortest_s, longest_s = recording.cut_s
    length_s = shortest_s * (longest_s / shortest_s) ** rng.random(count)  # (N,)
    start_s = rng.random(count) * (recording.shortest_s - length_s).clip(0)
    first = np.floor(start_s * fps)
    frames = np.arange(len(frame_times(fps)))
    return (frames >= first[:, None]) & (
        frames < (first + np.floor(length_s * fps).clip(1))[:, None]
    )


def _head_turns(count: int, fps: float, recording: Recording, rng: np.random.Generator) -> Array:
    """(N, T) 0 where the head faces the camera; in some clips it turns away and back once."""
    furthest = rng.uniform(0.3, 1.0, count) * (rng.random(count) < recording.turns)
    lasts_s = rng.uniform(*recording.turn_s, count)
    start_s = rng.uniform(0, recording.shortest_s, count)
    done = (frame_times(fps) - start_s[:, None]) / lasts_s[
        :, None
    ]  # (N, T), from 0 to 1 while it lasts
    return furthest[:, None] * np.minimum(4 * done, 4 * (1 - done)).clip(
        0, 1
    )  # a quarter there, a quarter back


def _lost_stretches(
    count: int, fps: float, recording: Recording, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(N, T) True where no face is found for a while."""
    happens = (
        np.arange(MOST_STRETCHES) < rng.poisson(recording.lost_stretches, count)[:, None]
    )  # (N, S)
    start_s = rng.uniform(0, LONGEST_S, happens.shape)
    end_s = start_s + rng.exponential(recording.lost_s, happens.shape)
    time_s = frame_times(fps)[:, None]  # (T, 1)
    return (happens[:, None] & (time_s >= start_s[:, None]) & (time_s < end_s[:, None])).any(-1)
