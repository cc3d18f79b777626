"""Track the people of a clip by place and size of their faces, and cut aligned crops.

Nobody is recognised: two people who are never in one frame count as one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from mma_mrnnet.faces.detection import TEMPLATE_SIZE, Detection, FaceDetector, align_face
from mma_mrnnet.faces.following import interpolate_face, shows_same_face
from mma_mrnnet.video.reading import TIME_TOLERANCE_S, VideoFrame

LOST_AFTER_S = 2.0  # after this time without a face, a person is lost (our choice)
MOST_BETWEEN = 2  # frames between two searched ones (our choice)
SEARCH_EVERY_S = 0.1  # the longest time between two searched frames, where frames are that dense

Found = dict[int, Detection]
"""The faces of a frame by track number."""


@dataclass(frozen=True)
class FaceFrame:
    """One person in one frame; `index` is the frame's number in the file, from 0.

    `due` has one flag per requested rate. `crop` is (S, S, 3) uint8 RGB, aligned, or None.
    """

    index: int
    time_s: float
    due: tuple[bool, ...]
    detection: Detection | None
    crop: np.ndarray | None


@dataclass(frozen=True)
class PeopleFrame:
    """All people in one frame; `index` is the frame's number in the file, from 0.

    `due` has one flag per requested rate. Faces and crops, (S, S, 3) uint8 RGB, are by track;
    tracks are numbered from 0 in order of appearance.
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
        """Return the frame without pixels, to keep for the whole clip."""
        return replace(self, crops={})


@dataclass
class _Track:
    """One person: the last face, its time, and the other faces of that frame.

    `others` come with their track numbers, -1 for none.
    """

    last: Detection
    time_s: float
    others: list[tuple[int, Detection]]
    sightings: int

    def distance(self, detection: Detection, sides: float) -> float | None:
        """Return the distance to the person's last face; None if it cannot be the same person."""
        moved = _distance(detection, self.last)
        fits = 0.5 <= detection.side / self.last.side <= 2 and moved <= sides * self.last.side
        return moved if fits else None

    def scale_to(self, picture: tuple[int, int]) -> None:
        self.last = self.last.scale_to(picture)
        self.others = [(number, face.scale_to(picture)) for number, face in self.others]


class FaceTracker:
    """Assigns faces to people by place, size and time.

    1. A face continues the track of a person who was seen in the last `LOST_AFTER_S`, was nearest
       to it, and has not been found elsewhere. It must be within one face side plus two per
       second, and its size must have changed by at most a factor of 2 (our choice).
    2. A remaining face continues a lost track within one side.
    3. A face that still remains:
       - continues a lost track if nobody was seen for `LOST_AFTER_S`: the largest face continues
         the track with the most sightings. A person who is alone, leaves and returns is one
         person;
       - begins a track if another face continues its track, or if there is no track to continue;
       - is dropped otherwise: the missing person may have jumped.

    If the picture size changes, as in some browsers' recordings, faces are compared relative to
    the picture.
    """

    def __init__(self) -> None:
        self._tracks: list[_Track] = []
        self._picture = (1, 1)

    def update(self, detections: list[Detection], time_s: float) -> Found:
        """Assign a frame's faces (largest first) to tracks, and update the tracks."""
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
        """Assign faces like `update`, but change no track and begin only the first one."""
        known = max(len(self._tracks), 1)
        found = self._assign(detections, time_s)
        return {number: face for number, face in found.items() if number < known}

    def _assign(self, detections: list[Detection], time_s: float) -> Found:
        """Apply the three rules; sorted by track, and new tracks continue the numbers."""
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
        """Assign one face per track, nearest first; `reaches` are allowed distances in sides.

        Greedy, unlike `scipy.optimize.linear_sum_assignment`: a face may be refused because another
        person was nearer, which no cost matrix can express.

        One second unseen counts as one side (our choice), so that a person in front, who is always
        seen, is not mistaken for somebody hidden there.
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
            # The face may belong to somebody who was nearer and is missing now.
            others = [other for track, other in self._tracks[number].others if track not in found]
            if all(moved <= _distance(detections[place], other) for other in others):
                found[number] = place
        return {number: detections[place] for number, place in found.items()}


class FaceFollower:
    """Follows one person of a live stream, where later frames are unknown.

    It starts with the largest face, and takes the largest again after `LOST_AFTER_S` without it.
    """

    def __init__(self) -> None:
        self._tracker = FaceTracker()
        self._track: int | None = None
        self._time_s = 0.0

    def follow(self, detections: list[Detection], time_s: float) -> Detection | None:
        """Return the person's face among detections (largest first); None if missing."""
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
    """Yield one `PeopleFrame` per frame, with aligned crops of all people.

    People are tracked along the frames that are due at the first rate. Other frames are only
    compared with the last of these, so that further rates do not change the result. Of these
    other frames every third is searched, and faces are interpolated between: up to three frames
    are held. Damaged frames have no faces unless `use_damaged`, since a decoder may invent some.
    """
    follower = _Cropper(size, detector or FaceDetector())
    for frame in frames:
        yield from follower.add(frame, is_usable=use_damaged or not frame.damaged)
    yield from follower.flush()


class _Cropper:
    """Searches frames for faces, or interpolates these, and cuts the crops."""

    def __init__(self, size: int, detector: FaceDetector) -> None:
        self._size, self._detector = size, detector
        self._tracker = FaceTracker()
        self._key: PeopleFrame | None = None  # the last one that was searched, if it has faces
        self._waiting: list[VideoFrame] = []  # frames since

    def add(self, frame: VideoFrame, *, is_usable: bool) -> Iterator[PeopleFrame]:
        """Take the next frame; yield all that are ready, in order."""
        if not is_usable:
            yield from self.flush()
            self._key = None
            yield self._crop(frame, {})
        elif self._can_wait(frame):
            self._waiting.append(frame)
        else:
            yield from self._search(frame)

    def flush(self) -> Iterator[PeopleFrame]:
        """Yield the frames that wait."""
        if self._waiting:
            yield from self._search(self._waiting.pop())

    def _can_wait(self, frame: VideoFrame) -> bool:
        key = self._key
        return (
            key is not None
            and not frame.due[0]
            and len(self._waiting) < MOST_BETWEEN
            and frame.time_s - key.time_s < SEARCH_EVERY_S - TIME_TOLERANCE_S
        )

    def _search(self, frame: VideoFrame) -> Iterator[PeopleFrame]:
        """Search a frame; yield those that waited for it, and the frame."""
        time_s, is_due = frame.time_s, frame.due[0]
        faces = self._detector(frame.image)
        # Frames that wait are older: assign their faces before the tracks are changed.
        searched = self._crop(frame, self._tracker.pick(faces, time_s))
        for waiting in self._waiting:
            yield self._interpolate(waiting, searched) or self._search_between(waiting)
        self._waiting = []
        if is_due:
            searched = self._crop(frame, self._tracker.update(faces, time_s))
        self._key = searched if searched.faces else None
        yield searched

    def _interpolate(self, frame: VideoFrame, after: PeopleFrame) -> PeopleFrame | None:
        """Place the faces of a frame between two searched ones; None if they are not there."""
        before = self._key
        if before is None or before.faces.keys() != after.faces.keys():
            return None
        share = (frame.time_s - before.time_s) / max(after.time_s - before.time_s, 1e-9)
        pairs = {track: (face, after.faces[track]) for track, face in before.faces.items()}
        if any(first.picture != second.picture for first, second in pairs.values()):
            return None
        faces = {track: interpolate_face(*pair, share) for track, pair in pairs.items()}
        placed = self._crop(frame, faces)
        for track, crop in placed.crops.items():
            for other in (before, after):
                if not shows_same_face(crop, other.crops[track]):
                    return None
        return placed

    def _search_between(self, frame: VideoFrame) -> PeopleFrame:
        faces = self._detector(frame.image)
        return self._crop(frame, self._tracker.pick(faces, frame.time_s))

    def _crop(self, frame: VideoFrame, faces: Found) -> PeopleFrame:
        crops = {
            track: align_face(frame.image, face.landmarks, self._size)
            for track, face in faces.items()
        }
        return PeopleFrame(frame.index, frame.time_s, frame.due, faces, crops)


def rank_people(frames: Iterable[PeopleFrame]) -> list[int]:
    """Return the tracks of a clip, first the person in most frames due at the first rate.

    The first one is the default of training and prediction. Ties: larger mean face relative to
    the picture, then the earlier track.
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
