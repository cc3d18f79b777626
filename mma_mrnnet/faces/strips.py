"""A few aligned crops of one person, spread over a clip of any length, in memory that does not grow with it."""

from dataclasses import dataclass, field

import numpy as np

MOST = 12  # crops of a finished strip: a row that still fits a page (our choice)
MOST_PEOPLE = 20  # strips that are held at once (our choice)


@dataclass(frozen=True, eq=False)
class FaceSnapshot:
    """One aligned face.

    Attributes:
        time_s: seconds since the clip's first frame.
        frame: the frame's number in the file, from 0.
        crop: (S, S, 3) uint8 RGB, what the extractor saw.
        score: the detector's confidence in [0, 1].
    """

    time_s: float
    frame: int
    crop: np.ndarray = field(repr=False)
    score: float


class Strip:
    """Every n-th of a person's faces; n doubles whenever `2 * MOST` of them are held."""

    def __init__(self) -> None:
        self._held: list[FaceSnapshot] = []
        self.seen = 0  # faces so far
        self._step = 1

    def add(self, snapshot: FaceSnapshot) -> None:
        """Takes the person's next face, or lets it go."""
        if self.seen % self._step == 0:
            if len(self._held) == 2 * MOST:
                self._held, self._step = self._held[::2], 2 * self._step
            # 2 * MOST is even: the face that found it full is the next one of the wider step too.
            self._held.append(snapshot)
        self.seen += 1

    def snapshots(self) -> list[FaceSnapshot]:
        """At most `MOST` faces in time order, evenly spread, the first one among them."""
        if len(self._held) <= MOST:
            return list(self._held)
        return [
            self._held[place]
            for place in np.linspace(0, len(self._held) - 1, MOST).round().astype(int)
        ]


class Strips:
    """The strips of the people of a clip, of at most `MOST_PEOPLE` at a time: those with the most faces so far."""

    def __init__(self) -> None:
        self._strips: dict[int, Strip] = {}

    def add(self, track: int, snapshot: FaceSnapshot) -> None:
        """Takes a person's next face, or lets it go."""
        if track not in self._strips and len(self._strips) == MOST_PEOPLE:
            del self._strips[min(self._strips, key=lambda other: self._strips[other].seen)]
        self._strips.setdefault(track, Strip()).add(snapshot)

    def of(self, track: int) -> list[FaceSnapshot]:
        """A person's faces; none where there are none, or where others had more."""
        return self._strips[track].snapshots() if track in self._strips else []
