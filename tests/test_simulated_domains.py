"""Simulated clips at other frame rates, and the domains that differ from the usual corpus."""

from dataclasses import replace

import numpy as np
import pytest

from mma_mrnnet.data.simulated_display import frame_times, wander
from mma_mrnnet.data.simulated_domains import DOMAINS, Domain, Recording, domain_named
from mma_mrnnet.data.simulated_extractor import ExtractorNoise, autoregressive, report_affect
from mma_mrnnet.data.synthetic import as_dataset, hume_like_splits, simulate_reactions

ALL_FOUND = Recording(missed_clips=0.0, found_otherwise=1.0)


def lengths_of(clips):
    return np.array([len(clip.affect) for clip in clips])


@pytest.fixture(scope="module")
def by_domain():
    return {name: hume_like_splits(4, (1024, 1, 1), domain=name)["train"] for name in (None, *DOMAINS)}


# Frame rates


def test_the_longest_clip_has_fifteen_seconds_of_frames():
    assert [len(frame_times(fps)) for fps in (1, 2.0, 2.5, 3, 4)] == [15, 30, 38, 45, 60]
    assert frame_times(4)[:4].tolist() == [0, 0.25, 0.5, 0.75]


@pytest.mark.parametrize("fps", [0.5, 1.0, 3.0, 4.0, 12.5])
def test_a_clip_has_its_frames_at_any_rate_and_lasts_as_long(fps):
    # A clip of d seconds has floor(fps * d) + 1 frames where all faces are found.
    usual = lengths_of(simulate_reactions(300, seed=5, short_share=0.3, recording=ALL_FOUND))
    found = lengths_of(simulate_reactions(300, seed=5, short_share=0.3, recording=ALL_FOUND, fps=fps))
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
        np.testing.assert_allclose(other.true_affect[::2, :2][: len(clip.affect)], clip.true_affect[:, :2], atol=1e-6)
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
    drift = autoregressive((6000, 4 * fps), 0.95, fps, np.random.default_rng(0))
    assert drift[:, -1].std() == pytest.approx(1, abs=0.04)
    assert np.corrcoef(drift[:, -1 - fps], drift[:, -1])[0, 1] == pytest.approx(0.95**2, abs=0.02)


@pytest.mark.parametrize("fps", [1, 2, 4])
def test_speech_wanders_as_far_in_a_second_at_every_rate(fps):
    # Two half seconds: 0.15 * sqrt(2) = 0.212
    phase = wander((8000, 3 * fps), fps, np.random.default_rng(1))
    assert (phase[:, -1] - phase[:, -1 - fps]).std() == pytest.approx(0.212, rel=0.05)


@pytest.mark.parametrize("fps", [0.0, -2.0, float("nan"), float("inf"), 61.0])
def test_rates_out_of_range_are_refused(fps):
    with pytest.raises(ValueError, match=r"above 0 and at most 60; got"):
        simulate_reactions(1, seed=0, fps=fps)


def test_the_data_set_says_at_which_rate_its_clips_are():
    assert "frames a second: 3.0" in as_dataset(simulate_reactions(2, seed=0, fps=3.0)).info.description


# Recordings


@pytest.mark.parametrize(("shortest_s", "longest_s"), [(0.0, 5.0), (8.0, 4.0), (5.0, 16.0)])
def test_durations_that_cannot_be_are_refused(shortest_s, longest_s):
    with pytest.raises(ValueError, match=r"at most 15 s; got"):
        Recording(shortest_s=shortest_s, longest_s=longest_s)


def test_a_recording_gives_lengths_and_missed_faces():
    # All clips last 4 to 5 s, floor(2 * d) + 1 = 9 or 10 frames; half of the faces are found.
    fixed = Recording(shortest_s=4.0, longest_s=5.0, duration=(1, 1), missed_clips=1.0, found_in_missed=(0.5, 0.5))
    lengths = lengths_of(simulate_reactions(512, seed=1, recording=fixed))
    assert lengths.mean() == pytest.approx(9.5 / 2, abs=0.15)
    assert lengths.max() <= 10 and lengths.min() >= 1


# Domains


def test_the_domains_are_those_that_experiments_name():
    assert list(DOMAINS) == ["people", "noise", "lengths", "rate", "other"]
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
    with pytest.raises(ValueError, match="one of people, noise, lengths, rate, other; got 'mars'"):
        hume_like_splits(0, (1, 1, 1), domain="mars")


def test_clips_have_the_announced_lengths(by_domain):
    mean = {name: lengths_of(clips).mean() for name, clips in by_domain.items()}
    assert mean["people"] == pytest.approx(mean[None], abs=0.5)
    assert mean["noise"] == pytest.approx(mean[None], abs=0.5)
    assert mean["lengths"] < 0.6 * mean[None]
    assert mean["rate"] == pytest.approx(1.5 * mean[None], rel=0.03)
    assert mean["other"] == pytest.approx(1.5 * mean["lengths"], rel=0.06)
    assert lengths_of(by_domain["lengths"]).max() <= 20  # floor(2 * 10 s), 10 s itself having no chance
    assert lengths_of(by_domain["rate"]).max() > 30  # more than the usual T


def test_many_faces_are_missed_where_that_is_announced():
    # Mean share found: 0.8 * 0.98 + 0.2 * (0.1 + 0.7) / 2 = 0.864; by default 0.997 - 0.013 * 0.547 = 0.990.
    for recording, share in ((Recording(), 0.990), (DOMAINS["lengths"].recording, 0.864)):
        whole = replace(recording, missed_clips=0.0, found_otherwise=1.0)
        found, there = (lengths_of(simulate_reactions(2048, seed=2, recording=one)) for one in (recording, whole))
        assert found.sum() / there.sum() == pytest.approx(share, abs=0.012)


def test_people_show_less_where_that_is_announced(by_domain):
    def shown(clips):
        return np.mean([np.abs(clip.true_affect[:, 0]).max() for clip in clips])

    assert shown(by_domain["people"]) < 0.8 * shown(by_domain[None])
    assert shown(by_domain["noise"]) == pytest.approx(shown(by_domain[None]), rel=0.1)
    assert shown(by_domain["other"]) < shown(by_domain["lengths"])


def test_the_extractor_errs_more_where_that_is_announced(by_domain):
    def error(clips):  # of expressions and of valence and arousal, whose report has the truth's own scale
        return np.mean([np.abs(clip.affect[:, :9] - clip.true_affect[:, :9]).mean() for clip in clips])

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
        clips for name in (None, *DOMAINS) for clips in hume_like_splits(9, (256, 256, 256), domain=name).values()
    ]
    seen = {tuple(clip.labels.tolist()) for clips in splits for clip in clips}
    assert len(seen) == sum(map(len, splits)) == 18 * 256


def test_a_domains_clips_follow_from_the_seed_to_the_bit():
    one, same, other = (hume_like_splits(seed, (20, 5, 5), domain="other") for seed in (3, 3, 4))
    for split in one:
        for clip, again in zip(one[split], same[split], strict=True):
            assert (clip.clip_id, clip.subject) == (again.clip_id, again.subject)
            assert clip.affect.tobytes() == again.affect.tobytes()
            assert clip.labels.tobytes() == again.labels.tobytes()
        assert one[split][0].labels.tobytes() != other[split][0].labels.tobytes()
    assert one["train"][0].clip_id == "train-000000"
