"""Choose the frames that a model reads of a clip; needs numpy alone."""

import numpy as np

LENGTH_POLICIES = ("thin", "truncate", "resample")
"""Ways to bring a clip to at most T frames; see `kept_indices`."""


def kept_indices(length: int, most: int, policy: str = "thin") -> np.ndarray:
    """Return int64 indices, in time order, of the frames that a model of T = `most` reads.

    `thin`: T evenly spaced frames of a longer clip, including both ends; `truncate`: the
    first T; `resample`: always T evenly spaced frames (a short clip repeats frames), or
    none of an empty clip.

    Raises:
        ValueError: another policy.
    """
    if policy not in LENGTH_POLICIES:
        raise ValueError(
            f"length_policy must be one of {', '.join(LENGTH_POLICIES)}; got {policy!r}"
        )
    if policy == "truncate":
        return np.arange(min(length, most))
    if length == 0 or (policy == "thin" and length <= most):
        return np.arange(length)
    if most == 1:
        return np.zeros(1, np.int64)
    # Counted from the nearer end, so that the places are symmetric also where halves are rounded.
    step, places = (length - 1) / (most - 1), np.arange(most)
    evenly = np.where(places < most // 2, step * places, length - 1 - step * (most - 1 - places))
    return np.round(evenly).astype(np.int64)


def thinned_indices(length: int, most: int) -> np.ndarray:
    """Return int64 indices of at most `most` evenly spaced frames, including both ends."""
    return kept_indices(length, most, "thin")


def describe_shortening(policy: str) -> str:
    """Return the words for what a policy does to a clip of more than T frames."""
    return "cut to the first" if policy == "truncate" else "thinned evenly to"
