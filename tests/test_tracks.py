"""What `faces/tracks.py` promises: whose face is whose, who counts as the clip's person, and the crops of everybody."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage.data import astronaut

from mma_mrnnet.faces.detection import Detection, FaceDetector, align_face
from mma_mrnnet.faces.tracks import FaceFollower, FaceTracker, PeopleFrame, crop_faces, rank_people
from mma_mrnnet.video.reading import VideoFrame, read_frames
from mma_mrnnet.video.writing import write_video

cv2.setNumThreads(1)


@pytest.fixture(scope="module")
def detector():
    return FaceDetector()


@pytest.fixture(scope="module")
def photo():
    return astronaut()


def square(x, y, side, score=0.9):
    """A face whose box is centred on (x, y)."""
    return Detection((x - side / 2, y - side / 2, side, side), np.zeros((5, 2)), score)


def frames_of(images, fps=25.0):
    return [VideoFrame(image, number / fps, number, (True,)) for number, image in enumerate(images)]


def tracker_of(*detections, time_s=0.0):
    """A tracker that saw these faces, the largest first, as tracks 0, 1, ..."""
    tracker = FaceTracker()
    assert list(tracker.update(list(detections), time_s)) == list(range(len(detections)))
    return tracker


def names(found, faces):
    """Which of the named faces each track got."""
    return {
        number: name
        for number, face in found.items()
        for name, named in faces.items()
        if named is face
    }


# ---- one person


def test_a_face_in_reach_goes_on_and_another_is_let_go_until_the_person_is_lost():
    tracker = tracker_of(square(100, 100, 60))
    near, far = square(140, 100, 60), square(900, 100, 60)
    assert tracker.update([near], 0.5) == {0: near}
    for time_s in (1.0, 2.5):
        assert tracker.update([far], time_s) == {}
    assert tracker.update([far], 2.6) == {
        0: far
    }  # alone, gone for more than 2 s, and back: one person


def test_reach_is_one_face_side_and_two_more_a_second():
    for moved, time_s, taken in (
        (60, 0.0, True),
        (61, 0.0, False),
        (119, 0.5, True),
        (121, 0.5, False),
    ):
        tracker = tracker_of(square(100, 100, 60))
        assert bool(tracker.update([square(100 + moved, 100, 60)], time_s)) == taken


def test_a_face_of_less_than_half_or_more_than_twice_the_size_is_another():
    for side, taken in ((29, False), (30, True), (120, True), (121, False)):
        tracker = tracker_of(square(100, 100, 60))
        assert bool(tracker.update([square(100, 100, side)], 0.04)) == taken


def test_picking_leaves_no_trace():
    tracker = tracker_of(square(100, 100, 60))
    for number in range(1, 12):
        tracker.pick([square(100 + 10 * number, 100, 60), square(900, 100, 60)], 0.04 * number)
    # 1 side + 2 * 0.48 sides = 117.6 px from where the face was at 0 s, not from where it was picked last.
    near, beside = square(217, 100, 60), square(900, 100, 60)
    assert tracker.pick([near, beside], 0.48) == {0: near}  # a track begins at a sampled frame only
    assert tracker.pick([square(219, 100, 60)], 0.48) == {}
    assert tracker.update([near, beside], 0.48) == {0: near, 1: beside}


def test_before_anybody_was_seen_only_the_largest_face_is_picked():
    large = square(300, 100, 60)
    assert FaceTracker().pick([large, square(100, 100, 40)], 0.2) == {0: large}


# ---- several people


def test_everybody_of_the_first_frame_begins_a_track_the_largest_first():
    large, small = square(300, 100, 60), square(100, 100, 40)
    assert FaceTracker().update([large, small], 0.0) == {0: large, 1: small}


def test_each_keeps_their_track_when_another_grows_larger():
    tracker = tracker_of(square(100, 100, 60), square(300, 100, 50))
    grown, other = square(300, 100, 70), square(110, 100, 55)
    assert tracker.update([grown, other], 0.5) == {0: other, 1: grown}


def test_a_neighbour_is_not_taken_for_somebody_who_is_away():
    # The two are 2.5 face sides apart, so that after 1 s the neighbour is within reach (1 + 2 * 1 = 3 sides).
    tracker, neighbour = (
        tracker_of(square(100, 100, 60), square(250, 100, 60)),
        square(250, 100, 60),
    )
    for time_s in np.arange(0.5, 10, 0.5):  # not even after the person is lost
        assert tracker.update([neighbour], time_s) == {1: neighbour}
    back = square(110, 100, 60)
    assert tracker.update([neighbour, back], 10.0) == {
        0: back,
        1: neighbour,
    }  # to the same place


def test_somebody_who_appears_beside_a_known_person_is_somebody_new():
    tracker, seated = tracker_of(square(100, 100, 60)), square(105, 100, 60)
    new = square(400, 100, 60)
    assert tracker.update([seated, new], 0.5) == {0: seated, 1: new}
    for time_s in (1.0, 1.5, 2.0, 2.5, 3.0):  # track 1 is lost meanwhile
        tracker.update([seated], time_s)
    elsewhere = square(800, 100, 60)
    assert tracker.update([seated, elsewhere], 3.5) == {0: seated, 2: elsewhere}


def test_of_several_faces_in_reach_the_nearest_is_taken_and_of_two_people_the_nearer_takes_it():
    nearer, farther = square(80, 100, 50), square(140, 100, 60)
    found = tracker_of(square(100, 100, 60)).update([farther, nearer], 0.5)
    assert names(found, {"nearer": nearer, "farther": farther}) == {0: "nearer", 1: "farther"}
    between = square(150, 100, 60)
    assert tracker_of(square(100, 100, 60), square(190, 100, 60)).update([between], 0.5) == {
        1: between
    }


def test_two_people_who_cross_keep_their_tracks():
    tracker = FaceTracker()
    for number in range(
        26
    ):  # both about 60 px large, 200 px apart, walking 8 px a frame past each other
        left, right = square(100 + 8 * number, 100, 60), square(300 - 8 * number, 190, 55)
        assert tracker.update([left, right], number / 25) == {0: left, 1: right}


def test_somebody_who_reappears_behind_another_is_who_they_were():
    # Track 1 walks to the right behind track 0 and is hidden from 0.5 to 1 s; 0 stands where it stood.
    tracker, front = tracker_of(square(200, 100, 80), square(100, 100, 60)), square(200, 100, 80)
    assert tracker.update([front], 0.5) == tracker.update([front], 1.0) == {0: front}
    behind = square(300, 100, 60)  # nearer to where 0 is than to where 1 was
    assert tracker.update([front, behind], 1.5) == {0: front, 1: behind}
    # Where 0 is not found the face may as well be theirs, too small now to tell: it is nobody's.
    tracker = tracker_of(square(200, 100, 80), square(100, 100, 60))
    assert tracker.update([square(200, 100, 35)], 0.5) == {}


def test_after_a_scene_without_faces_everybody_has_their_place_back():
    tracker = tracker_of(square(100, 100, 60), square(400, 100, 50))
    grown = square(390, 100, 80)
    assert tracker.update([grown, small := square(105, 100, 50)], 10.0) == {0: small, 1: grown}


def test_whoever_is_alone_after_a_break_elsewhere_is_the_one_with_the_most_sightings():
    tracker = tracker_of(square(400, 100, 60), square(100, 100, 40))
    for time_s in (0.5, 1.0):
        tracker.update([square(100, 100, 40)], time_s)
    alone = square(800, 400, 50)
    assert tracker.update([alone], 5.0) == {1: alone}


def test_times_alone_decide_so_that_a_denser_sampling_changes_nothing_but_reach():
    # The same walk of 40 px in 0.5 s, seen at its ends and in between: the same tracks.
    ends = tracker_of(square(100, 100, 60), square(300, 100, 60))
    dense = tracker_of(square(100, 100, 60), square(300, 100, 60))
    for step in range(1, 5):
        dense.update([square(100 + 8 * step, 100, 60), square(300 + 8 * step, 100, 60)], 0.1 * step)
    last = [square(140, 100, 60), square(340, 100, 60)]
    assert ends.update(last, 0.5) == dense.update(last, 0.5) == {0: last[0], 1: last[1]}


# ---- one person of a live stream


def test_a_live_stream_follows_the_largest_face_and_another_after_two_seconds_without_it():
    follower = FaceFollower()
    large, small = square(300, 100, 60), square(100, 100, 40)
    assert follower.follow([large, small], 0.0) is large
    grown, other = square(100, 100, 70), square(310, 100, 55)
    assert follower.follow([grown, other], 0.5) is other
    for time_s in (1.0, 1.5, 2.0, 2.5):
        assert follower.follow([grown], time_s) is None
    assert follower.follow([grown], 2.6) is grown
    assert follower.follow([grown, other], 3.0) is grown
    assert follower.follow([], 3.5) is None


# ---- who is the clip's person


def seen(*frames, sampled=None):
    """Frames with the given {track: side}."""
    sampled = sampled or [True] * len(frames)
    return [
        PeopleFrame(
            number, number / 2, (due,), {track: square(0, 0, side) for track, side in frame.items()}
        )
        for number, (frame, due) in enumerate(zip(frames, sampled, strict=True))
    ]


def test_whoever_is_in_most_sampled_frames_comes_first():
    assert rank_people(seen({0: 90}, {1: 20}, {1: 20})) == [1, 0]
    assert rank_people(seen({0: 90}, {1: 20}, {1: 20}, sampled=[True, True, False])) == [0, 1]
    assert rank_people(seen({}, {})) == []
    assert rank_people(seen({0: 50}, sampled=[False])) == [
        0
    ]  # seen between the sampled frames alone


def test_of_two_in_as_many_frames_the_larger_face_on_average_comes_first_then_the_earlier():
    assert rank_people(seen({0: 50, 1: 40}, {0: 50, 1: 70})) == [1, 0]
    assert rank_people(seen({1: 50, 0: 50})) == [0, 1]


# ---- frames to crops


def test_every_frame_gives_one_record_with_or_without_a_face(photo):
    nothing = np.full_like(photo, 128)
    frames = frames_of([photo, nothing, nothing, photo])
    found = list(crop_faces(frames, size=32))
    assert [item.index for item in found] == [0, 1, 2, 3]
    assert [item.time_s for item in found] == [frame.time_s for frame in frames]
    assert [item.due for item in found] == [(True,)] * 4
    assert [list(item.faces) for item in found] == [[0], [], [], [0]]
    assert found[1].crops == {}
    assert found[0].crops[0].shape == (32, 32, 3)
    assert np.array_equal(found[0].crops[0], align_face(photo, found[0].faces[0].landmarks, 32))
    assert (
        found[1].of(0).detection
        is found[1].of(0).crop
        is found[0].without_crops().of(0).crop
        is None
    )
    assert found[0].without_crops().faces is found[0].faces


def test_frames_are_taken_one_at_a_time(photo):
    taken = []
    stream = crop_faces(
        (taken.append(frame.index) or frame for frame in frames_of([photo] * 4)), size=32
    )
    next(stream)
    next(stream)
    assert taken == [0, 1]


def test_no_frames_give_no_records():
    assert list(crop_faces([])) == []


def test_frames_of_a_second_rate_do_not_change_what_the_first_rate_sees(photo):
    # The face jumps 256 px (about 3 face sides) within 0.5 s: beyond reach at 2 a second. Seen at every frame it is
    # a steady walk, which must not help: what the first rate finds may not depend on what is asked beside it.
    wide = [np.zeros((512, 1024, 3), np.uint8) for _ in range(11)]
    for number, image in enumerate(wide):
        left = min(51 * number, 512)
        image[:, left : left + 512] = photo
    alone = frames_of([wide[0], wide[10]], fps=2.0)
    beside = [
        VideoFrame(image, number / 20, number, (number % 10 == 0, True))
        for number, image in enumerate(wide)
    ]
    expected = [bool(item.faces) for item in crop_faces(alone, size=32)]
    sampled = [bool(item.faces) for item in crop_faces(beside, size=32) if item.due[0]]
    assert sampled == expected == [True, False]


def test_a_moving_face_is_followed_through_a_written_clip(photo, tmp_path):
    images = []
    for number in range(8):
        image = np.full((256, 384, 3), 128, np.uint8)
        image[:, 16 * number : 16 * number + 256] = photo[:256, 96:352]
        images.append(image)
    found = list(crop_faces(read_frames(write_video(tmp_path / "walk.mp4", images, 25))))
    moved = np.diff([item.faces[0].center[0] for item in found])
    assert moved == pytest.approx([16] * 7, abs=3)


# ---- pictures of two people


def scene(photo, *people, height=300, width=640):
    """People as (x, side): the photo's face and shoulders, `side` pixels high and wide, `x` pixels from the left."""
    image = np.full((height, width, 3), 128, np.uint8)
    for x, side in people:
        person = cv2.resize(photo[:256, 96:352], (side, side), interpolation=cv2.INTER_AREA)
        left, right = max(x, 0), min(x + side, width)
        if left < right:
            image[:side, left:right] = person[:, left - x : right - x]
    return image


def middles(frames):
    """Track to the middles of its face, frame by frame; None where it is not there."""
    return {
        track: [
            round(float(item.faces[track].center[0])) if track in item.faces else None
            for item in frames
        ]
        for track in rank_people(frames)
    }


def test_two_people_of_two_sizes_are_followed_and_whoever_stays_longer_is_the_clips_person(
    photo, detector
):
    # Two frames a second. The larger person walks out on the right after 2 s; the smaller one stays for 4 s.
    images = [
        scene(photo, (380 if number < 4 else 5000, 240), (40 + 4 * number, 160))
        for number in range(8)
    ]
    found = list(crop_faces(frames_of(images, fps=2.0), 32, detector))
    staying, leaving = rank_people(found)
    assert (leaving, staying) == (0, 1)  # the larger face comes first where tracks begin
    places = middles(found)
    assert [place is not None for place in places[leaving]] == [True] * 4 + [False] * 4
    assert np.diff(places[staying]) == pytest.approx([4] * 7, abs=3)


@pytest.mark.parametrize("step", [1, 3])
def test_two_people_who_walk_past_each_other_are_not_swapped(photo, detector, step):
    # 8 frames a second, of which each or every third is looked at; the larger one hides the other for a while.
    images = [scene(photo, (400 - 14 * number, 150), (16 * number, 240)) for number in range(28)]
    found = list(crop_faces(frames_of(images[::step], fps=8 / step), 32, detector))
    assert rank_people(found) == [0, 1]
    larger, smaller = (
        [place for place in places if place is not None] for places in middles(found).values()
    )
    assert len(larger) >= 24 / step
    assert len(smaller) >= 14 / step
    assert max(larger) - min(larger) > 350
    assert (np.diff(larger) > 0).all()
    assert max(smaller) - min(smaller) > 300
    assert (np.diff(smaller) < 0).all()


def test_one_person_who_leaves_for_three_seconds_and_comes_back_elsewhere_is_one(photo, detector):
    images = [scene(photo, (40, 240))] * 3 + [scene(photo)] * 6 + [scene(photo, (380, 200))] * 3
    found = list(crop_faces(frames_of(images, fps=2.0), 32, detector))
    assert [list(item.faces) for item in found] == [[0]] * 3 + [[]] * 6 + [[0]] * 3


# ---- following: faces are placed between two searched frames


def dense(images, every=12, fps=24.0):
    """Frames of which every twelfth is due at the first rate, 2 a second."""
    return [
        VideoFrame(image, number / fps, number, (number % every == 0, True))
        for number, image in enumerate(images)
    ]


def interpolated(frames):
    return [item.index for item in frames if any(f.interpolated for f in item.faces.values())]


def test_between_sampled_frames_every_third_is_searched_and_faces_are_placed_between(photo):
    images = [scene(photo, (20 + 2 * number, 150)) for number in range(13)]
    found = list(crop_faces(dense(images), 32))
    assert [item.index for item in found] == list(range(13))
    assert interpolated(found) == [1, 2, 4, 5, 7, 8, 10, 11]
    assert [list(item.faces) for item in found] == [[0]] * 13
    assert middles(found)[0] == pytest.approx(
        [middles(found)[0][0] + 2 * n for n in range(13)], abs=2
    )
    start, third = found[0].faces[0], found[3].faces[0]
    expected = start.landmarks + (third.landmarks - start.landmarks) / 3
    assert found[1].faces[0].landmarks == pytest.approx(expected)
    assert found[1].faces[0].box == pytest.approx(
        [(2 * a + b) / 3 for a, b in zip(start.box, third.box, strict=True)]
    )
    assert np.array_equal(found[1].crops[0], align_face(images[1], expected, 32))


def test_the_last_frames_of_a_clip_are_placed_too(photo):
    found = list(crop_faces(dense([scene(photo, (40, 150))] * 6), 32))
    assert [list(item.faces) for item in found] == [[0]] * 6
    assert interpolated(found) == [1, 2, 4]


def test_no_face_is_placed_into_another_scene_or_behind_a_hand(photo):
    face, other = scene(photo, (40, 150)), scene(photo, (300, 150))
    covered = face.copy()
    covered[20:100, 60:160] = 90
    # A hand in frame 1; a cut before frame 5, to a face elsewhere.
    found = list(crop_faces(dense([face, covered, face, face, face, other, other]), 32))
    assert [bool(item.faces) for item in found[:5]] == [True, False, True, True, True]
    assert 1 not in interpolated(found)
    assert 5 not in interpolated(found)
    damaged = [replace(frame, damaged=frame.index == 1) for frame in dense([face] * 4)]
    assert [bool(item.faces) for item in crop_faces(damaged, 32)] == [True, False, True, True]


@pytest.mark.parametrize("name", ["face_noface.mov", "noface_face.mov"])
def test_what_is_placed_between_has_no_more_and_no_fewer_faces_than_a_search(
    shared_clips, detector, name
):
    # One second around the moment where the face goes or comes.
    frames = list(read_frames(shared_clips / name, 2.0, None))
    frames = frames[60:86] if name == "face_noface.mov" else frames[85:111]
    placed = list(crop_faces(frames, 32, detector))
    searched = [len(detector(frame.image)) for frame in frames]
    assert [len(item.faces) for item in placed] == searched
    assert 0 < sum(searched) < len(frames)


# ---- real clips


@pytest.mark.parametrize(
    ("name", "frames", "with_face", "tolerance"),
    [
        ("face_noface.mov", 169, 72, 2),
        ("noface_face.mov", 169, 72, 2),
        ("single_face.mp4", 72, 72, 0),
        ("no_face.mp4", 95, 0, 0),
        ("grid_bbaf2n.mpg", 75, 75, 0),
    ],
)
def test_faces_of_real_clips_are_counted(
    shared_clips, detector, name, frames, with_face, tolerance
):
    found = [0 in item.faces for item in crop_faces(read_frames(shared_clips / name), 32, detector)]
    assert len(found) == frames
    assert abs(sum(found) - with_face) <= tolerance


# ---- pictures that change their size, damaged frames


def pictures(photo, *sizes):
    """A walk to the right in pictures whose size changes."""
    walk = [scene(photo, (20 * number, 240)) for number in range(len(sizes))]
    return [
        cv2.resize(image, (round(640 * size), round(300 * size)), interpolation=cv2.INTER_AREA)
        for image, size in zip(walk, sizes, strict=True)
    ]


def test_a_face_is_followed_where_the_picture_changes_its_size(photo, detector):
    images = pictures(photo, 1, 1, 3, 3, 0.5, 0.5, 2)
    found = list(crop_faces(frames_of(images, fps=2.0), 32, detector))
    assert [list(item.faces) for item in found] == [[0]] * 7


def test_two_people_are_told_apart_where_the_picture_changes_its_size(photo, detector):
    sizes = [1, 1, 2.5, 2.5, 1, 2.5]
    images = [
        cv2.resize(scene(photo, (20, 180), (380, 240)), (round(640 * size), round(300 * size)))
        for size in sizes
    ]
    found = list(crop_faces(frames_of(images, fps=2.0), 32, detector))
    assert [list(item.faces) for item in found] == [[0, 1]] * 6
    for item, size in zip(found, sizes, strict=True):
        assert item.faces[0].center[0] > 320 * size > item.faces[1].center[0]


def test_a_live_stream_is_followed_where_the_picture_changes_its_size():
    follower = FaceFollower()
    box = (100.0, 100.0, 60.0, 60.0)
    first = Detection(box, np.zeros((5, 2)), 0.9, (320, 240))
    second = Detection(tuple(4 * side for side in box), np.zeros((5, 2)), 0.9, (1280, 960))
    assert follower.follow([first], 0.0) is first
    assert follower.follow([second], 0.5) is second
    assert follower.follow([first], 1.0) is first


def test_the_larger_face_is_the_larger_part_of_its_picture():
    small = Detection((0, 0, 90, 90), np.zeros((5, 2)), 0.9, (1000, 1000))
    large = Detection((0, 0, 60, 60), np.zeros((5, 2)), 0.9, (200, 200))
    frames = [PeopleFrame(0, 0.0, (True,), {0: small}), PeopleFrame(1, 0.5, (True,), {1: large})]
    assert rank_people(frames) == [1, 0]


def test_a_damaged_frame_has_no_face_unless_asked_for(photo, detector):
    frames = [VideoFrame(photo, n / 2, n, (True,), damaged=n == 1) for n in range(3)]
    usual = list(crop_faces(frames, 32, detector))
    asked = list(crop_faces(frames, 32, detector, use_damaged=True))
    assert [list(item.faces) for item in usual] == [[0], [], [0]]
    assert [list(item.faces) for item in asked] == [[0]] * 3


@pytest.mark.parametrize(
    ("name", "faces"),
    [
        ("base.mp4", 12),
        ("joined_forward.ts", 13),
        ("thumbnail_first.mkv", 12),
        ("size_changes.webm", 12),
        ("size_stays.webm", 12),
        ("hdr_hlg.mp4", 12),
    ],
)
def test_faces_are_found_in_all_frames_of_faulty_files(shared_faulty, detector, name, faces):
    found = list(crop_faces(read_frames(shared_faulty / name, 2.0), 32, detector))
    assert [list(item.faces) for item in found] == [[0]] * faces
