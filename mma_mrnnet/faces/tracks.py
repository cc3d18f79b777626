"""Follow the people of a clip from frame to frame by place and size, and cut their aligned crops.

Nobody is recognised: two people who are never seen in one frame count as one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from mma_mrnnet.faces.detection import TEMPLATE_SIZE, Detection, FaceDetector, align_face
from mma_mrnnet.video.reading import VideoFrame

LOST_AFTER_S = 2.0  # a person not seen for longer is lost (our choice)

Found = dict[int, Detection]
"""Faces of a frame by the number of their track."""


@dataclass(frozen=True)
class FaceFrame:
    """What was found of one person in one frame.

    Attributes:
        index: the frame's number in the file, from 0.
        time_s: its time since the first frame.
        due: for which of the requested frame rates the frame was sampled.
        detection: the person's face; None if it was not there.
        crop: (S, S, 3) uint8 RGB, aligned; None without a face, or once it was dropped.
    """

    index: int
    time_s: float
    due: tuple[bool, ...]
    detection: Detection | None
    crop: np.ndarray | None


@dataclass(frozen=True)
class PeopleFrame:
    """What was found of all people in one frame.

    Attributes:
        index: the frame's number in the file, from 0.
        time_s: its time since the first frame.
        due: for which of the requested frame rates the frame was sampled.
        faces: each person's face by track; tracks are numbered from 0 in the order they begin.
        crops: their (S, S, 3) uint8 RGB, aligned; empty once they were dropped.
    """

    index: int
    time_s: float
    due: tuple[bool, ...]
    faces: Found
    crops: dict[int, np.ndarray] = field(default_factory=dict)

    def of(self, track: int) -> FaceFrame:
        """Return one person's part."""
        face, crop = self.faces.get(track), self.crops.get(track)
        return FaceFrame(self.index, self.time_s, self.due, face, crop)

    def without_crops(self) -> "PeopleFrame":
        """Return the frame without its pixels, to keep for the whole clip."""
        return replace(self, crops={})


@dataclass
class _Track:
    """One person.

    Attributes:
        last: the face as it was last seen.
        time_s: when that was.
        others: the other faces of that frame with the numbers of their tracks; -1 for none.
        sightings: frames in which the person was seen.
    """

    last: Detection
    time_s: float
    others: list[tuple[int, Detection]]
    sightings: int

    def distance(self, detection: Detection, sides: float) -> float | None:
        """Return how far the face is from the person's last one; None if it cannot be theirs."""
        moved = _distance(detection, self.last)
        fits = 0.5 <= detection.side / self.last.side <= 2 and moved <= sides * self.last.side
        return moved if fits else None

    def scale_to(self, picture: tuple[int, int]) -> None:
        """Move to a picture of another size."""
        self.last = self.last.scale_to(picture)
        self.others = [(number, face.scale_to(picture)) for number, face in self.others]


class FaceTracker:
    """Tell the people of a clip apart by where their faces are, how large, and when.

    1. A face continues the track of a person who was seen in the last `LOST_AFTER_S`, was
       nearest to it, and has not been found elsewhere. It must lie within one face side plus two
       per second, and its size must have changed by at most a factor of 2 (our choice).
    2. A remaining face continues a lost track if it lies within one side of it.
    3. A face that remains then:
       - continues a lost track if nobody has been seen for `LOST_AFTER_S`: the largest face
         continues the track with the most sightings. Somebody who is alone, leaves and returns
         is one person;
       - begins a track if another face continues its track, or if there is no track to continue;
       - is dropped otherwise: the person who was just here, and is missing, may have jumped.

    If the size of the picture changes, as in some browsers' recordings, faces are compared
    relative to the picture.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._picture = (1, 1)

    def update(self, detections: list[Detection], time_s: float) -> Found:
        """Assign a frame's faces to tracks, and continue from there.

        Args:
            detections: a frame's faces, the largest first.
            time_s: the frame's time, not smaller than the previous one's.
        """
        found = self._assign(detections, time_s)
        named = {id(detection): number for number, detection in found.items()}
        for number, detection in found.items():
            others = [
                (named.get(id(other), -1), other) for other in detections if other is not detection
            ]
            if number == len(self._tracks):
                self._tracks.append(_Track(detection, time_s, others, 1))
            else:
                sightings = self._tracks[number].sightings + 1
                self._tracks[number] = _Track(detection, time_s, others, sightings)
        return found

    def pick(self, detections: list[Detection], time_s: float) -> Found:
        """Assign faces like `update`, but change no track and begin none except the first."""
        known = max(len(self._tracks), 1)
        found = self._assign(detections, time_s)
        return {number: face for number, face in found.items() if number < known}

    def _assign(self, detections: list[Detection], time_s: float) -> Found:
        """Apply the three rules; sorted by track, and new tracks count on from the last one."""
        if detections and detections[0].picture != self._picture:
            self._picture = detections[0].picture
            for track in self._tracks:
                track.scale_to(self._picture)
        elapsed = [time_s - track.time_s for track in self._tracks]
        alive = [number for number, seconds in enumerate(elapsed) if seconds <= LOST_AFTER_S]
        lost = [number for number, seconds in enumerate(elapsed) if seconds > LOST_AFTER_S]
        reaches = {number: 1 + 2 * elapsed[number] for number in alive}
        found = self._assign_nearest(detections, reaches, time_s)
        continued = bool(found)
        left = _without(detections, found)
        found |= self._assign_nearest(left, dict.fromkeys(lost, 1.0), time_s)
        left = _without(left, found)
        if not alive:
            waiting = [number for number in lost if number not in found]
            waiting.sort(key=lambda n: (-self._tracks[n].sightings, -self._tracks[n].time_s))
            found |= dict(zip(waiting, left, strict=False))
            left = left[len(waiting) :]
        if continued or not alive:
            found |= dict(enumerate(left, start=len(self._tracks)))
        return dict(sorted(found.items()))

    def _assign_nearest(
        self, detections: list[Detection], reaches: dict[int, float], time_s: float
    ) -> Found:
        """Assign one face per track, nearest first; `reaches` gives the allowed distance in sides.

        Greedy, and not `scipy.optimize.linear_sum_assignment`: a face may be refused because
        somebody else stood nearer, which no matrix of costs can say.

        One second without being seen counts as one side (our choice), so that a person in front,
        who is seen all the time, is not taken for somebody hidden there.
        """
        pairs = []
        for number, sides in reaches.items():
            track = self._tracks[number]
            for place, detection in enumerate(detections):
                moved = track.distance(detection, sides)
                if moved is not None:
                    cost = moved / track.last.side + time_s - track.time_s
                    pairs.append((cost, number, place, moved))
        found: dict[int, int] = {}
        for _, number, place, moved in sorted(pairs):
            if number in found or place in found.values():
                continue
            # Somebody who stood nearer, and has not been found now, may own this face instead.
            others = [other for track, other in self._tracks[number].others if track not in found]
            if all(moved <= _distance(detections[place], other) for other in others):
                found[number] = place
        return {number: detections[place] for number, place in found.items()}


class FaceFollower:
    """Follow one person of a live stream, of whom nobody knows yet who is in most frames.

    It starts with the largest face; after `LOST_AFTER_S` without that person, the largest face
    in view.
    """

    def __init__(self) -> None:
        self._tracker = FaceTracker()
        self._track: int | None = None
        self._time_s = 0.0

    def follow(self, detections: list[Detection], time_s: float) -> Detection | None:
        """Return the person's face among detections (largest first); None if not there."""
        found = self._tracker.update(detections, time_s)
        gone = self._track is None or time_s - self._time_s > LOST_AFTER_S
        if found and gone and self._track not in found:
            self._track = max(found, key=lambda track: found[track].side)
        if self._track is None or self._track not in found:
            return None
        self._time_s = time_s
        return found[self._track]


def crop_faces(
    frames: Iterable[VideoFrame],
    size: int = TEMPLATE_SIZE,
    detector: FaceDetector | None = None,
    *,
    use_damaged: bool = False,
) -> Iterator[PeopleFrame]:
    """Yield one `PeopleFrame` per frame, with everybody's aligned crop.

    People are followed along the frames that are due at the first rate. Frames in between are only
    compared with the last of these, so that further rates do not change the result at the first
    one.

    Args:
        frames: in time order.
        size: S, side of the crops.
        detector: None makes one.
        use_damaged: search damaged frames too; otherwise they have no faces, since what a decoder
            makes up may look like one.
    """
    detector = detector or FaceDetector()
    tracker = FaceTracker()
    for frame in frames:
        faces: Found = {}
        if use_damaged or not frame.damaged:
            assign = tracker.update if frame.due[0] else tracker.pick
            faces = assign(detector(frame.image), frame.time_s)
        crops = {
            track: align_face(frame.image, face.landmarks, size) for track, face in faces.items()
        }
        yield PeopleFrame(frame.index, frame.time_s, frame.due, faces, crops)


def rank_people(frames: Iterable[PeopleFrame]) -> list[int]:
    """Return the tracks of a clip, first whoever is in most of the frames due at the first rate.

    The first person is the one whom training and prediction use by default. Ties go to the larger
    face on average, relative to the picture, then to the earlier track.
    """
    sides: dict[int, list[float]] = {}
    for frame in frames:
        for track, face in frame.faces.items():
            side = face.side / max(face.picture)
            sides.setdefault(track, []).extend([side] if frame.due[0] else [])
    means = {track: float(np.mean(seen)) if seen else 0.0 for track, seen in sides.items()}
    return sorted(sides, key=lambda track: (-len(sides[track]), -means[track], track))


def _without(detections: list[Detection], found: Found) -> list[Detection]:
    return [face for face in detections if not any(face is other for other in found.values())]


def _distance(detection: Detection, other: Detection) -> float:
    return float(np.linalg.norm(detection.center - other.center))
