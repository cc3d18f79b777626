"""Frames -> the people in them, each followed from frame to frame by place and size, and their aligned crops.

Nobody is recognised: two people who are never seen in one frame read as one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from mma_mrnnet.faces.detection import TEMPLATE_SIZE, Detection, FaceDetector, align_face
from mma_mrnnet.video.reading import VideoFrame

LOST_AFTER_S = 2.0  # a person not seen for longer is lost (our choice)


@dataclass(frozen=True)
class FaceFrame:
    """What was found of one person in one frame.

    Attributes:
        index: the frame's number in the file, from 0.
        time_s: its time since the first frame.
        due: which of the asked frame rates the frame was sampled for.
        detection: the person's face; None where it was not there.
        crop: (S, S, 3) uint8 RGB, aligned; None where there was no face, or where it was let go.
    """

    index: int
    time_s: float
    due: tuple[bool, ...]
    detection: Detection | None
    crop: np.ndarray | None


@dataclass(frozen=True)
class PeopleFrame:
    """What was found of everybody in one frame.

    Attributes:
        index: the frame's number in the file, from 0.
        time_s: its time since the first frame.
        due: which of the asked frame rates the frame was sampled for.
        faces: each person's face under the number of their track, counted from 0 as tracks begin.
        crops: their (S, S, 3) uint8 RGB, aligned; empty where they were let go.
    """

    index: int
    time_s: float
    due: tuple[bool, ...]
    faces: dict[int, Detection]
    crops: dict[int, np.ndarray] = field(default_factory=dict)

    def of(self, track: int) -> FaceFrame:
        """One person's part."""
        return FaceFrame(
            self.index, self.time_s, self.due, self.faces.get(track), self.crops.get(track)
        )

    def without_crops(self) -> "PeopleFrame":
        """What may be kept of every frame of a long clip."""
        return replace(self, crops={})


@dataclass
class _Track:
    """One person.

    Attributes:
        last: the face as it was seen last, ...
        time_s: ... when that was, ...
        others: ... and the other faces of that frame, with the numbers of their tracks; -1 for none.
        sightings: frames in which the person was seen.
    """

    last: Detection
    time_s: float
    others: list[tuple[int, Detection]]
    sightings: int

    def distance(self, detection: Detection, sides: float) -> float | None:
        """How far a face is from where the person was; None where it is too far or of another size to be theirs."""
        moved = _distance(detection, self.last)
        fits = 0.5 <= detection.side / self.last.side <= 2 and moved <= sides * self.last.side
        return moved if fits else None


class FaceTracker:
    """Tells the people of a clip apart by where their faces are, how large, and when.

    1. A face continues the track of whoever was seen in the last `LOST_AFTER_S`, was nearest to where it is now, and
       has not been found elsewhere: within one face side plus two a second, its size changed by at most a factor of
       2 (our choice).
    2. What is left over continues a lost track where that person was: within one side.
    3. What is left over then:
       - where nobody has been seen for `LOST_AFTER_S`, it continues the lost tracks: the largest face the one with
         the most sightings. Someone who is alone, leaves and comes back is one person;
       - beside a face that continues its track, or where there is no track to continue, it begins a track;
       - else it is let go: whoever was just here, and is missing, may have jumped.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []

    def update(self, detections: list[Detection], time_s: float) -> list[tuple[int, Detection]]:
        """Number of the track and face of everybody in a frame, and goes on from there.

        Args:
            detections: a frame's faces, the largest first.
            time_s: the frame's time, no smaller than the last one's.
        """
        found = self._assigned(detections, time_s)
        named = {id(detection): number for number, detection in found}
        for number, detection in found:
            others = [
                (named.get(id(other), -1), other) for other in detections if other is not detection
            ]
            if number == len(self._tracks):
                self._tracks.append(_Track(detection, time_s, others, 1))
            else:
                sightings = self._tracks[number].sightings + 1
                self._tracks[number] = _Track(detection, time_s, others, sightings)
        return found

    def pick(self, detections: list[Detection], time_s: float) -> list[tuple[int, Detection]]:
        """As `update`, but leaves no trace: no track begins, but for the first one, which is still to come."""
        known = max(len(self._tracks), 1)
        return [
            (number, detection)
            for number, detection in self._assigned(detections, time_s)
            if number < known
        ]

    def _assigned(self, detections: list[Detection], time_s: float) -> list[tuple[int, Detection]]:
        """By the three rules above, in the order of the tracks' numbers; new ones count on from the last track."""
        elapsed = [time_s - track.time_s for track in self._tracks]
        alive = [number for number, seconds in enumerate(elapsed) if seconds <= LOST_AFTER_S]
        lost = [number for number, seconds in enumerate(elapsed) if seconds > LOST_AFTER_S]
        found = self._nearest(
            detections, {number: 1 + 2 * elapsed[number] for number in alive}, time_s
        )
        continued = bool(found)
        left = [detection for detection in detections if not _holds(found, detection)]
        found |= self._nearest(left, dict.fromkeys(lost, 1.0), time_s)
        left = [detection for detection in left if not _holds(found, detection)]
        if not alive:
            waiting = [number for number in lost if number not in found]
            waiting.sort(
                key=lambda number: (-self._tracks[number].sightings, -self._tracks[number].time_s)
            )
            found |= dict(zip(waiting, left, strict=False))
            left = left[len(waiting) :]
        if continued or not alive:
            found |= dict(enumerate(left, start=len(self._tracks)))
        return sorted(found.items())

    def _nearest(
        self, detections: list[Detection], reaches: dict[int, float], time_s: float
    ) -> dict[int, Detection]:
        """One face a track, nearest first; `reaches` says how many sides off it may be.

        A second without being seen counts as one side (our choice): whoever is in front, seen all the time, is not
        taken for somebody hidden there.
        """
        pairs = []
        for number, sides in reaches.items():
            track = self._tracks[number]
            for place, detection in enumerate(detections):
                moved = track.distance(detection, sides)
                if moved is not None:
                    pairs.append(
                        (moved / track.last.side + time_s - track.time_s, number, place, moved)
                    )
        found: dict[int, int] = {}
        for _, number, place, moved in sorted(pairs):
            if number in found or place in found.values():
                continue
            # Somebody else who stood nearer, and is not found elsewhere now, may be hidden or too changed to tell.
            others = [other for track, other in self._tracks[number].others if track not in found]
            if all(moved <= _distance(detections[place], other) for other in others):
                found[number] = place
        return {number: detections[place] for number, place in found.items()}


class FaceFollower:
    """One person of a live stream, of which nobody knows yet who will be in most frames.

    The largest face at first; after `LOST_AFTER_S` without that person the largest that there is.
    """

    def __init__(self) -> None:
        self._tracker = FaceTracker()
        self._track: int | None = None
        self._time_s = 0.0

    def follow(self, detections: list[Detection], time_s: float) -> Detection | None:
        """The person's face among a frame's detections (largest first); None where it is not there."""
        found = dict(self._tracker.update(detections, time_s))
        gone = self._track is None or time_s - self._time_s > LOST_AFTER_S
        if found and gone and self._track not in found:
            self._track = max(found, key=lambda track: found[track].side)
        if self._track in found:
            self._time_s = time_s
        return found.get(self._track)


def _holds(found: dict[int, Detection], detection: Detection) -> bool:
    return any(other is detection for other in found.values())


def _distance(detection: Detection, other: Detection) -> float:
    return float(np.linalg.norm(detection.center - other.center))


def crop_faces(
    frames: Iterable[VideoFrame], size: int = TEMPLATE_SIZE, detector: FaceDetector | None = None
) -> Iterator[PeopleFrame]:
    """One `PeopleFrame` for every frame, streamed: everybody's aligned crop, or none where nobody was there.

    People are followed along the frames that are due at the first rate. Frames in between are looked at from the last
    of these, so that what is asked beside the first rate does not change what is found at it.

    Args:
        frames: in time order.
        size: S, side of the crops.
        detector: None makes one.
    """
    detector = detector or FaceDetector()
    tracker = FaceTracker()
    for frame in frames:
        assign = tracker.update if frame.due[0] else tracker.pick
        faces = dict(assign(detector(frame.image), frame.time_s))
        crops = {
            track: align_face(frame.image, face.landmarks, size) for track, face in faces.items()
        }
        yield PeopleFrame(frame.index, frame.time_s, frame.due, faces, crops)


def rank_people(frames: Iterable[PeopleFrame]) -> list[int]:
    """Everybody in a clip by the number of their track, whoever is in most of the frames due at the first rate first.

    That first person is the one whom training and prediction mean when they are not asked for another. Of two who are
    in as many frames the one with the larger face on average comes first, then the one who was there first.
    """
    sides: dict[int, list[float]] = {}
    for frame in frames:
        for track, face in frame.faces.items():
            sides.setdefault(track, []).extend([face.side] if frame.due[0] else [])
    means = {track: float(np.mean(seen)) if seen else 0.0 for track, seen in sides.items()}
    return sorted(sides, key=lambda track: (-len(sides[track]), -means[track], track))
