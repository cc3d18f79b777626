"""Keep a few aligned crops of each person, for a report."""

from dataclasses import dataclass, field

import numpy as np

MOST = 12  # crops per strip, a row of a page (our choice)
MOST_PEOPLE = 20  # strips held at once (our choice)


@dataclass(frozen=True, eq=False)
class FaceSnapshot:
    """One aligned face, (S, S, 3) uint8 RGB, with its time, frame number and detection score."""

    time_s: float
    frame: int
    crop: np.ndarray = field(repr=False)
    score: float


class Strip:
    """Every n-th face of a person; n doubles whenever `2 * MOST` are held."""

    def __init__(self) -> None:
        self._held: list[FaceSnapshot] = []
        self.seen = 0  # faces so far
        self._step = 1

    def add(self, snapshot: FaceSnapshot) -> None:
        """Take the person's next face, or drop it."""
        if self.seen % self._step == 0:
            if len(self._held) == 2 * MOST:  # even, so this face fits the doubled step too
                self._held, self._step = self._held[::2], 2 * self._step
            self._held.append(snapshot)
        self.seen += 1

    def snapshots(self) -> list[FaceSnapshot]:
        """Return at most `MOST` evenly spaced faces in time order, with the first one."""
        if len(self._held) <= MOST:
            return list(self._held)
        places = np.linspace(0, len(self._held) - 1, MOST).round().astype(int)
        return [self._held[place] for place in places]


class Strips:
    """The strips of at most `MOST_PEOPLE` people, those with the most faces so far."""

    def __init__(self) -> None:
        self._strips: dict[int, Strip] = {}

    def add(self, track: int, snapshot: FaceSnapshot) -> None:
        """Take a person's next face, or drop it."""
        if track not in self._strips and len(self._strips) == MOST_PEOPLE:
            del self._strips[min(self._strips, key=lambda other: self._strips[other].seen)]
        self._strips.setdefault(track, Strip()).add(snapshot)

    def of(self, track: int) -> list[FaceSnapshot]:
        """Return a person's faces; empty without faces, or if others had more."""
        return self._strips[track].snapshots() if track in self._strips else []
