"""Simulated clips at other frame rates, and the domains that differ from the usual corpus."""

from dataclasses import replace

import numpy as np
import pytest

from mma_mrnnet.model.labels import ACTION_UNITS, REACTIONS
from mma_mrnnet.synthetic.display import Looseness, list_frame_times, sample_wander
from mma_mrnnet.synthetic.domains import DOMAINS, Domain, Recording, domain_named
from mma_mrnnet.synthetic.extractor_noise import (
    ExtractorNoise,
    report_affect,
    sample_autoregressive,
    turn_away,
)
from mma_mrnnet.synthetic.reactions import (
    as_dataset,
    hume_like_splits,
    sample_happenings,
    simulate_reactions,
)

ALL_FOUND = Recording(missed_clips=0.0, found_otherwise=1.0)
MEASURED = ExtractorNoise(unit_slope=6.0)  # stands for one from `noise_from_errors`


def lengths_of(clips):
    return np.array([len(clip.affect) for clip in clips])


@pytest.fixture(scope="module")
def by_domain():
    return {name: splits_of(name, 4, (1024, 1, 1))["train"] for name in (None, *DOMAINS)}


def splits_of(name, seed, counts, **shares):
    measured = name is not None and DOMAINS[name].needs_errors
    return hume_like_splits(
        seed, counts, domain=name, noise=MEASURED if measured else None, **shares
    )


# Frame rates


def test_the_longest_clip_has_fifteen_seconds_of_frames():
    assert [len(list_frame_times(fps)) for fps in (1, 2.0, 2.5, 3, 4)] == [15, 30, 38, 45, 60]
    assert list_frame_times(4)[:4].tolist() == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("fps", [0.5, 1.0, 3.0, 4.0, 12.5])
def test_a_clip_has_its_frames_at_any_rate_and_lasts_as_long(fps):
    # A clip of d seconds has floor(fps * d) + 1 frames where all faces are found.
    usual = lengths_of(simulate_reactions(300, seed=5, short_share=0.3, recording=ALL_FOUND))
    found = lengths_of(
        simulate_reactions(300, seed=5, short_share=0.3, recording=ALL_FOUND, fps=fps)
    )
    least_s, most_s = (usual - 1) / 2, usual / 2
    assert (found >= np.floor(fps * least_s) + 1).all()
    assert (found <= np.floor(fps * most_s) + 1).all()


def test_at_four_frames_a_second_there_are_about_twice_as_many_as_at_two():
    usual, dense = (lengths_of(simulate_reactions(512, seed=6, fps=fps)) for fps in (2.0, 4.0))
    assert dense.max() <= 60
    assert dense.mean() / usual.mean() == pytest.approx(2, abs=0.06)


def test_the_same_people_show_the_same_reactions_at_every_rate():
    # Valence of the true face is what shows of the reactions: no talking, rest or noise is in it.
    usual = simulate_reactions(60, seed=7, quiet_share=0.2, recording=ALL_FOUND)
    dense = simulate_reactions(60, seed=7, quiet_share=0.2, recording=ALL_FOUND, fps=4)
    for clip, other in zip(usual, dense, strict=True):
        assert (clip.clip_id, clip.subject, clip.kind) == (other.clip_id, other.subject, other.kind)
        assert clip.labels.tobytes() == other.labels.tobytes()
        np.testing.assert_allclose(
            other.true_affect[::2, :2][: len(clip.affect)], clip.true_affect[:, :2], atol=1e-6
        )
        assert (clip.fps, other.fps) == (2, 4)


@pytest.mark.parametrize("fps", [1, 2, 4])
def test_errors_last_as_long_at_every_rate(fps):
    # 0.7 from one half second to the next is 0.49 over a second; a still face, so that all that moves is error.
    noise = replace(ExtractorNoise(), bad_frames=0.0)
    face = np.zeros((4000, 5 * fps, 26))
    face[..., 2] = 1.0
    speech = np.zeros((*face.shape[:2], 1))
    report = report_affect(face, speech, np.zeros((4000, 26)), noise, np.random.default_rng(3), fps)
    valence = report[..., 0]
    assert np.corrcoef(valence[:, 0], valence[:, fps])[0, 1] == pytest.approx(0.49, abs=0.05)
    assert valence.std() == pytest.approx(0.08, rel=0.05)


@pytest.mark.parametrize("fps", [1, 2, 4])
def test_noise_keeps_its_variance_and_memory_at_every_rate(fps):
    drift = sample_autoregressive((6000, 4 * fps), 0.95, fps, np.random.default_rng(0))
    assert drift[:, -1].std() == pytest.approx(1, abs=0.04)
    assert np.corrcoef(drift[:, -1 - fps], drift[:, -1])[0, 1] == pytest.approx(0.95**2, abs=0.02)


@pytest.mark.parametrize("fps", [1, 2, 4])
def test_speech_wanders_as_far_in_a_second_at_every_rate(fps):
    # Two half seconds: 0.15 * sqrt(2) = 0.212
    phase = sample_wander((8000, 3 * fps), fps, np.random.default_rng(1))
    assert (phase[:, -1] - phase[:, -1 - fps]).std() == pytest.approx(0.212, rel=0.05)


@pytest.mark.parametrize("fps", [0.0, -2.0, float("nan"), float("inf"), 61.0])
def test_rates_out_of_range_are_refused(fps):
    with pytest.raises(ValueError, match=r"above 0 and at most 60; got"):
        simulate_reactions(1, seed=0, fps=fps)


def test_the_data_set_says_at_which_rate_its_clips_are():
    assert (
        "frames a second: 3.0"
        in as_dataset(simulate_reactions(2, seed=0, fps=3.0)).info.description
    )


# Recordings


@pytest.mark.parametrize(("shortest_s", "longest_s"), [(0.0, 5.0), (8.0, 4.0), (5.0, 16.0)])
def test_durations_that_cannot_be_are_refused(shortest_s, longest_s):
    with pytest.raises(ValueError, match=r"at most 15 s; got"):
        Recording(shortest_s=shortest_s, longest_s=longest_s)


def test_a_recording_gives_lengths_and_missed_faces():
    # All clips last 4 to 5 s, floor(2 * d) + 1 = 9 or 10 frames; half of the faces are found.
    fixed = Recording(
        shortest_s=4.0, longest_s=5.0, duration=(1, 1), missed_clips=1.0, found_in_missed=(0.5, 0.5)
    )
    lengths = lengths_of(simulate_reactions(512, seed=1, recording=fixed))
    assert lengths.mean() == pytest.approx(9.5 / 2, abs=0.15)
    assert lengths.max() <= 10 and lengths.min() >= 1


# Domains


def test_the_domains_are_those_that_experiments_name():
    assert list(DOMAINS) == ["people", "noise", "lengths", "rate", "other", "measured"]
    changed = {
        name: {part for part in ("looseness", "noise", "recording", "fps") if differs(domain, part)}
        for name, domain in DOMAINS.items()
    }
    assert changed == {
        "people": {"looseness"},
        "noise": {"noise"},
        "lengths": {"recording"},
        "rate": {"fps"},
        "other": {"looseness", "noise", "recording", "fps"},
        "measured": {"looseness", "recording"},  # and the noise that the caller gives
    }


def differs(domain, part):
    return getattr(domain, part) != getattr(Domain(""), part)


def test_a_rate_of_its_own_wins_over_the_models():
    assert domain_named(None).rate(4.0) == 4.0
    assert DOMAINS["people"].rate(4.0) == 4.0
    assert DOMAINS["rate"].rate(4.0) == DOMAINS["other"].rate(2.0) == 3.0
    assert hume_like_splits(1, (1, 1, 1), fps=4.0, domain="lengths")["test"][0].fps == 4.0
    assert hume_like_splits(1, (1, 1, 1), fps=4.0, domain="other")["test"][0].fps == 3.0


def test_an_unknown_domain_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match="one of people, noise, lengths, rate, other, measured; got 'mars'"
    ):
        hume_like_splits(0, (1, 1, 1), domain="mars")


def test_clips_have_the_announced_lengths(by_domain):
    mean = {name: lengths_of(clips).mean() for name, clips in by_domain.items()}
    assert mean["people"] == pytest.approx(mean[None], abs=0.5)
    assert mean["noise"] == pytest.approx(mean[None], abs=0.5)
    assert mean["lengths"] < 0.6 * mean[None]
    assert mean["rate"] == pytest.approx(1.5 * mean[None], rel=0.03)
    assert mean["other"] == pytest.approx(1.5 * mean["lengths"], rel=0.06)
    assert (
        lengths_of(by_domain["lengths"]).max() <= 20
    )  # floor(2 * 10 s), 10 s itself having no chance
    assert lengths_of(by_domain["rate"]).max() > 30  # more than the usual T


def test_many_faces_are_missed_where_that_is_announced():
    # Mean share found: 0.8 * 0.98 + 0.2 * (0.1 + 0.7) / 2 = 0.864; by default 0.997 - 0.013 * 0.547 = 0.990.
    for recording, share in ((Recording(), 0.990), (DOMAINS["lengths"].recording, 0.864)):
        whole = replace(recording, missed_clips=0.0, found_otherwise=1.0)
        found, there = (
            lengths_of(simulate_reactions(2048, seed=2, recording=one))
            for one in (recording, whole)
        )
        assert found.sum() / there.sum() == pytest.approx(share, abs=0.012)


def test_people_show_less_where_that_is_announced(by_domain):
    def shown(clips):
        return np.mean([np.abs(clip.true_affect[:, 0]).max() for clip in clips])

    assert shown(by_domain["people"]) < 0.8 * shown(by_domain[None])
    assert shown(by_domain["noise"]) == pytest.approx(shown(by_domain[None]), rel=0.1)
    assert shown(by_domain["other"]) < shown(by_domain["lengths"])


def test_the_extractor_errs_more_where_that_is_announced(by_domain):
    def error(
        clips,
    ):  # of expressions and of valence and arousal, whose report has the truth's own scale
        return np.mean(
            [np.abs(clip.affect[:, :9] - clip.true_affect[:, :9]).mean() for clip in clips]
        )

    usual = error(by_domain[None])
    assert error(by_domain["noise"]) > 1.25 * usual
    assert error(by_domain["other"]) > 1.25 * usual
    assert error(by_domain["lengths"]) == pytest.approx(usual, rel=0.1)


def test_labels_follow_the_same_law_in_every_domain(by_domain):
    usual = np.mean([clip.labels for clip in by_domain[None]], axis=0)
    for clips in by_domain.values():
        assert np.mean([clip.labels for clip in clips], axis=0) == pytest.approx(usual, abs=0.06)


def test_no_person_is_in_two_domains_or_splits():
    # Labels are drawn by one law from the seed of a split: had two splits one seed, they would have equal labels.
    splits = [
        clips for name in (None, *DOMAINS) for clips in splits_of(name, 9, (256, 256, 256)).values()
    ]
    seen = {tuple(clip.labels.tolist()) for clips in splits for clip in clips}
    assert len(seen) == sum(map(len, splits)) == 21 * 256


def test_a_domains_clips_follow_from_the_seed_to_the_bit():
    one, same, other = (hume_like_splits(seed, (20, 5, 5), domain="other") for seed in (3, 3, 4))
    for split in one:
        for clip, again in zip(one[split], same[split], strict=True):
            assert (clip.clip_id, clip.subject) == (again.clip_id, again.subject)
            assert clip.affect.tobytes() == again.affect.tobytes()
            assert clip.labels.tobytes() == again.labels.tobytes()
        assert one[split][0].labels.tobytes() != other[split][0].labels.tobytes()
    assert one["train"][0].clip_id == "train-000000"


# Measured errors


def test_measured_errors_are_given_where_they_belong_and_nowhere_else():
    with pytest.raises(ValueError, match="domain measured: an extractor's noise is given for"):
        hume_like_splits(0, (1, 1, 1), domain="measured")
    for name in (None, "people"):
        with pytest.raises(ValueError, match=f"domain {name}: an extractor's noise is given for"):
            hume_like_splits(0, (1, 1, 1), domain=name, noise=MEASURED)


def test_the_given_noise_is_what_reports_are_drawn_with():
    one, other = (
        hume_like_splits(2, (40, 1, 1), domain="measured", noise=noise)["train"]
        for noise in (MEASURED, replace(MEASURED, unit_floor=20.0))
    )
    for clip, changed in zip(one, other, strict=True):
        assert clip.true_affect.tobytes() == changed.true_affect.tobytes()
        told = [place for place, unit in enumerate(ACTION_UNITS) if unit not in (11, 23)]
        assert (changed.affect[:, 9:][:, told] > clip.affect[:, 9:][:, told]).all()


def test_short_clips_down_to_one_frame_are_in_every_split_of_measured():
    splits = splits_of("measured", 6, (400, 400, 400), short_share=0.4)
    for clips in splits.values():
        lengths = lengths_of(clips)
        assert (lengths == 1).sum() >= 10
        assert 0.25 < (lengths < 15).mean() < 0.5
    # Without the share, only faces that are not found shorten a clip.
    assert (lengths_of(splits_of("measured", 6, (1, 1, 400))["test"]) < 10).mean() < 0.05


def test_every_number_of_a_measured_clip_is_in_range():
    for clips in splits_of("measured", 8, (512, 1, 1), short_share=0.5, quiet_share=0.2).values():
        frames = np.concatenate([clip.affect for clip in clips])
        assert np.isfinite(frames).all()
        assert np.abs(frames[:, :2]).max() <= 1
        assert frames[:, 2:].min() >= 0 and frames[:, 2:].max() <= 1
        np.testing.assert_allclose(frames[:, 2:9].sum(1), 1, atol=1e-5)


# What happens while a clip is recorded


def happened(fps=2.0, count=2000, pace=1.0, **numbers):
    return sample_happenings(
        np.full(count, pace), fps, Recording(**numbers), np.random.default_rng(3)
    )


def test_nothing_happens_in_a_usual_recording():
    usual = happened(pace=0.3)
    assert (
        (usual.pace == 0.3).all()
        and usual.kept.all()
        and not usual.turn.any()
        and not usual.lost.any()
    )


def test_faces_are_lost_in_stretches_of_the_announced_length():
    # One stretch of 4 s on average: far longer than a frame, so most lost frames lie behind another lost one.
    lost = happened(lost_stretches=1.0, lost_s=4.0).lost
    behind = lost[:, 1:][lost[:, :-1]].mean()
    assert behind > 0.8
    assert 0.15 < lost.mean() < 0.25  # one of 4 s in 15 s, cut off where it reaches beyond the clip
    assert happened(lost_stretches=1.0, lost_s=4.0, fps=6.0).lost.mean() == pytest.approx(
        lost.mean(), abs=0.02
    )


def test_heads_turn_there_and_back_and_are_lost_when_far_away():
    turned = happened(fps=4.0, turns=1.0, turn_s=(4.0, 4.0))
    assert turned.turn.min() == 0 and 0.9 < turned.turn.max() <= 1
    for row in turned.turn[:50]:
        # 4 s at 4 frames a second: 15 or 16 frames beyond 0, fewer where the clip ends first.
        assert (row > 0).sum() <= 16
        assert len(np.flatnonzero(np.diff((row > 0).astype(int)) == 1)) <= 1  # once
    assert (turned.lost == (turned.turn > 0.8)).all() and turned.lost.any()


def test_a_clip_that_is_cut_out_keeps_one_stretch_of_a_longer_one_at_its_own_pace():
    cut = happened(pace=0.3, cut_share=1.0, cut_s=(0.3, 9.0))
    frames = cut.kept.sum(1)
    assert (cut.pace == 1).all()
    assert frames.min() == 1 and 15 < frames.max() <= 18
    # Evenly over the logarithm: below 1 s, floor(2 s * length) of at least 1 is one frame: log(1 / 0.3) / log(30).
    assert (frames == 1).mean() == pytest.approx(np.log(1 / 0.3) / np.log(30), abs=0.03)
    assert (np.diff(cut.kept.astype(int), axis=1) == 1).sum(1).max() <= 1
    assert cut.kept[:, 0].mean() < 0.3  # most start later than the recording
    assert happened(pace=1.0, cut_share=1.0).kept.all()  # only short clips are cut


def test_a_turned_head_shows_less_and_is_misread_in_one_direction():
    noise = replace(ExtractorNoise(), turned_fade=0.5, turned_bias=2.0)
    face = np.zeros((3000, 2, 26))
    face[..., 2 + 4] = 1.0  # happiness
    face[..., 0] = 0.8
    turn = np.tile([0.0, 1.0], (3000, 1))
    seen, bias = turn_away(face, np.zeros((3000, 26)), turn, noise, np.random.default_rng(0))
    np.testing.assert_array_equal(seen[:, 0], face[:, 0])
    assert seen[0, 1, [0, 2, 6]].tolist() == [0.4, 0.5, 0.5]  # paler, and half of it neutral
    assert not bias[:, 0].any()
    assert bias[:, 1, 0].std() == pytest.approx(2 * 0.08, rel=0.05)
    assert bias[:, 1, 20].std() == pytest.approx(2 * 0.5, rel=0.05)


def test_blends_show_a_second_reaction_that_labels_know_nothing_of():
    # The labels are the same; what shows is more in the clips that blend, and in no clip less.
    usual, blended = (
        simulate_reactions(
            256, seed=3, recording=ALL_FOUND, looseness=Looseness(blends=share, report_noise=0.0)
        )
        for share in (0.0, 1.0)
    )
    surprise = REACTIONS.index("Surprise")
    for clip, other in zip(usual, blended, strict=True):
        assert clip.labels.tobytes() == other.labels.tobytes()
    unlabelled = [row for row, clip in enumerate(usual) if clip.labels[surprise] < 0.1]
    seen = [
        np.mean([clips[row].true_affect[:, 8].max() for row in unlabelled])
        for clips in (usual, blended)
    ]
    assert seen[1] > seen[0] + 0.02


def test_quiet_clips_do_not_blend():
    for clip in simulate_reactions(100, seed=3, quiet_share=1.0, looseness=Looseness(blends=1.0)):
        if clip.kind in ("neutral", "talking"):
            assert not clip.true_affect[:, :2].any()
