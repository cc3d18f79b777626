import hashlib
from collections import Counter
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from datasets import Dataset

from mma_mrnnet.features.records import clip_features
from mma_mrnnet.model.labels import ACTION_UNITS, EXPRESSIONS, REACTIONS, affect_names
from mma_mrnnet.model.priors import ACTION_UNIT_PRIOR
from mma_mrnnet.results import ExtractorErrors, UnitErrors
from mma_mrnnet.synthetic.display import (
    ASSOCIATIONS,
    CIRCUMPLEX,
    DISPLAYS,
    Looseness,
    list_frame_times,
    look_like,
    show_display,
)
from mma_mrnnet.synthetic.extractor_noise import (
    ExtractorNoise,
    combine_causes,
    find_columns,
    noise_from_errors,
    report_affect,
)
from mma_mrnnet.synthetic.reactions import (
    CORRELATION,
    MARGINALS,
    as_dataset,
    hume_like_splits,
    sample_labels,
    simulate_reactions,
)

FIRST_UNIT = 2 + 7


@pytest.fixture(scope="module")
def clips():
    return simulate_reactions(6000, seed=11)


@pytest.fixture(scope="module")
def quiet_clips():
    return simulate_reactions(768, seed=12, quiet_share=0.5)


def mean_units(clips, reaction, *units, field="affect"):
    """Mean of the units over the clips in which the reaction is the strongest."""
    column = REACTIONS.index(reaction)
    frames = np.concatenate([getattr(clip, field) for clip in clips if clip.labels[column] == 1])
    return frames[:, [FIRST_UNIT + place for place in find_columns(*units)]].mean()


# Labels


def test_the_published_shares_of_one_leave_exactly_one_dominant_reaction():
    assert sum(marginal.share_one for marginal in MARGINALS.values()) == pytest.approx(1.0)
    assert tuple(MARGINALS) == REACTIONS


def test_the_labels_have_the_published_marginals():
    labels = sample_labels(15806, np.random.default_rng(0))
    for column, marginal in enumerate(MARGINALS.values()):
        values = labels[:, column]
        found = (values.mean(), values.std(), (values == 0).mean(), (values == 1).mean())
        assert found == pytest.approx(marginal, abs=0.015)


def test_every_clip_with_a_reaction_has_exactly_one_label_at_one(clips):
    labels = np.stack([clip.labels for clip in clips])
    assert ((labels == 1).sum(1) == 1).all()
    assert labels.min() == 0 and labels.max() == 1


def test_the_correlation_table_is_a_correlation():
    assert np.array_equal(CORRELATION, CORRELATION.T)
    assert (np.diag(CORRELATION) == 1).all()
    assert np.linalg.eigvalsh(CORRELATION).min() > 0


def test_reactions_blend_in_a_plausible_way():
    found = np.corrcoef(sample_labels(8000, np.random.default_rng(1)).T)

    def together(one, other):
        return found[REACTIONS.index(one), REACTIONS.index(other)]

    assert together("Fear", "Anxiety") > 0.3
    assert together("Adoration", "Amusement") > 0.03
    assert together("Empathic-Pain", "Anxiety") > 0.1
    for other in ("Fear", "Anxiety", "Disgust", "Empathic-Pain"):
        assert together("Amusement", other) < -0.15


# Clips


def test_the_affect_stays_in_its_ranges(clips):
    for field in ("affect", "true_affect"):
        frames = np.concatenate([getattr(clip, field) for clip in clips[:1500]])
        valence_arousal, expressions, units = np.split(frames, [2, 9], axis=1)
        assert frames.shape[1] == len(affect_names()) == 26
        assert frames.dtype == np.float32
        assert np.isfinite(frames).all()
        assert np.abs(valence_arousal).max() <= 1
        assert expressions.min() >= 0
        assert np.allclose(expressions.sum(1), 1, atol=1e-5)
        assert units.min() >= 0 and units.max() <= 1


def test_the_extractor_never_reports_an_exact_zero_or_one(clips):
    probabilities = np.concatenate([clip.affect for clip in clips[:1500]])[:, 2:]
    assert probabilities.min() > 0 and probabilities.max() < 1


def test_the_lengths_are_those_of_the_corpus(clips):
    lengths = np.array([len(clip.affect) for clip in clips])
    assert lengths.min() >= 1 and lengths.max() == 30
    assert np.median(lengths) == 23
    assert lengths.mean() == pytest.approx(23.6, abs=0.2)
    assert np.percentile(lengths, 95) == pytest.approx(29, abs=1)
    assert (lengths < 16).mean() == pytest.approx(0.008, abs=0.004)
    assert all(len(clip.affect) == len(clip.true_affect) for clip in clips)


def test_the_same_seed_gives_the_same_bits():
    for one, other in zip(
        simulate_reactions(40, seed=5), simulate_reactions(40, seed=5), strict=True
    ):
        assert one.affect.tobytes() == other.affect.tobytes()
        assert one.true_affect.tobytes() == other.true_affect.tobytes()
        assert one.labels.tobytes() == other.labels.tobytes()


def digest_of(clips):
    digest = hashlib.sha256()
    for clip in clips:
        digest.update(f"{clip.clip_id} {clip.subject} {clip.kind}".encode())
        for values in (clip.affect, clip.true_affect, clip.labels):
            digest.update(values.tobytes())
    return digest.hexdigest()


def test_clips_without_displays_are_still_those_that_the_first_checkpoint_was_scored_on():
    # A NumPy whose generators draw otherwise would change them too.
    clips = simulate_reactions(
        600, seed=7, quiet_share=0.2, short_share=0.3, looseness=Looseness(poses=0.0)
    )
    assert digest_of(clips) == "aa5c9aabeaf2f8dc63f95e5202a5ee6ddc6545cf4097efcb9309308cbc29afcf"
    splits = hume_like_splits(3, (300, 40, 40), quiet_share=0.1, short_share=0.2)
    assert (
        digest_of(clip for split in splits.values() for clip in split if clip.kind == "reaction")
        == "6dca227eec75aa32522b9af5319ebdab081f8cdaa68b454941e64782f9a20c4e"
    )


def test_another_seed_gives_other_clips():
    one, other = simulate_reactions(1, seed=5)[0], simulate_reactions(1, seed=6)[0]
    assert one.affect.tobytes() != other.affect.tobytes()


def test_a_longer_list_starts_with_the_shorter_one():
    longer = simulate_reactions(300, seed=5)  # more than one block of 256
    for one, other in zip(simulate_reactions(20, seed=5), longer[:20], strict=True):
        assert (one.clip_id, one.subject, one.kind) == (other.clip_id, other.subject, other.kind)
        assert one.affect.tobytes() == other.affect.tobytes()
        assert one.labels.tobytes() == other.labels.tobytes()


def test_no_clips_are_an_empty_list():
    assert simulate_reactions(0, seed=5) == []


def test_a_person_has_about_eleven_clips(clips):
    # 25,067 clips of 2,222 people are 11.28 each; 6,000 clips are then 532 people.
    assert len({clip.subject for clip in clips}) == pytest.approx(532, abs=1)
    assert len({clip.clip_id for clip in clips}) == len(clips)


@pytest.mark.parametrize(
    "wrong", [{"count": -1}, {"seed": -1}, {"quiet_share": 1.1}, {"quiet_share": -0.1}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="quiet_share"):
        simulate_reactions(**{"count": 1, "seed": 0, **wrong})


# Quiet clips


def test_a_hume_shaped_list_has_no_quiet_clip(clips):
    assert {clip.kind for clip in clips} == {"reaction"}


def test_quiet_clips_have_no_reaction_at_all(quiet_clips):
    quiet = [clip for clip in quiet_clips if clip.kind != "reaction"]
    assert {clip.kind for clip in quiet} == {"neutral", "talking", *DISPLAYS}
    assert len(quiet) == pytest.approx(768 / 2, abs=60)
    assert all((clip.labels == 0).all() for clip in quiet)
    assert all(clip.labels.max() == 1 for clip in quiet_clips if clip.kind == "reaction")


def test_a_calm_face_is_reported_mostly_neutral_with_small_units(quiet_clips):
    frames = np.concatenate([clip.affect for clip in quiet_clips if clip.kind == "neutral"])
    assert frames[:, 2].mean() > 0.75
    supervised = [
        FIRST_UNIT + place for place, unit in enumerate(ACTION_UNITS) if unit not in (11, 23)
    ]
    assert 0.02 < np.median(frames[:, supervised]) < 0.15


def test_talking_moves_the_mouth_and_not_the_brow(quiet_clips):
    def mean(kind, unit):
        frames = np.concatenate([clip.true_affect for clip in quiet_clips if clip.kind == kind])
        return frames[:, FIRST_UNIT + ACTION_UNITS.index(unit)].mean()

    assert mean("talking", 25) > mean("neutral", 25) + 0.2
    assert mean("talking", 26) > mean("neutral", 26) + 0.1
    assert mean("talking", 4) == pytest.approx(mean("neutral", 4), abs=0.03)


def test_the_true_face_of_a_quiet_clip_feels_nothing(quiet_clips):
    for clip in quiet_clips:
        if clip.kind in ("neutral", "talking"):
            assert (clip.true_affect[:, :2] == 0).all()
            assert (clip.true_affect[:, 2] == 1).all()


# Displays that are no reaction


def shown(name, clips=400, fps=4.0, seed=0):
    """Return (clips, T, 17) units of people of usual strength."""
    rng = np.random.default_rng(seed)
    return show_display(name, np.ones((clips, 17)), np.ones(clips), fps, rng)


def test_half_of_the_quiet_clips_show_each_display_about_equally_often():
    clips = simulate_reactions(2560, seed=4, quiet_share=1.0)
    counts = Counter(clip.kind for clip in clips)
    assert sum(counts[name] for name in DISPLAYS) == pytest.approx(1280, abs=90)
    assert min(counts[name] for name in DISPLAYS) > 1280 / len(DISPLAYS) - 45
    assert counts["neutral"] == pytest.approx(counts["talking"], abs=90)
    calm = simulate_reactions(256, seed=4, quiet_share=1.0, looseness=Looseness(poses=0.0))
    assert {clip.kind for clip in calm} == {"neutral", "talking"}


def test_displays_change_no_reaction_clip():
    posed, calm = (
        simulate_reactions(256, seed=4, quiet_share=0.5, looseness=Looseness(poses=share))
        for share in (1.0, 0.0)
    )
    for one, other in zip(posed, calm, strict=True):
        assert one.labels.tobytes() == other.labels.tobytes()
        if one.kind == "reaction":
            assert one.affect.tobytes() == other.affect.tobytes()


@pytest.mark.parametrize("name", DISPLAYS)
def test_a_display_shows_its_own_units_as_often_as_it_says(name):
    units = shown(name)
    assert units.min() == 0 and units.max() <= 1
    peak = units.max(1)  # (clips, 17)
    own = DISPLAYS[name].units
    others = [place for place, unit in enumerate(ACTION_UNITS) if unit not in own]
    assert not peak[:, others].any()
    if not DISPLAYS[name].changes:
        for unit, share in own.items():
            found = (peak[:, ACTION_UNITS.index(unit)] > 0).mean()
            assert found == pytest.approx(share, abs=0.1)


def test_a_posed_grin_is_mostly_without_the_cheeks_and_stays_flat():
    units = shown("grin", fps=10.0)
    corner, cheek = units[..., ACTION_UNITS.index(12)], units[..., ACTION_UNITS.index(6)]
    assert (cheek.max(1) == 0).mean() == pytest.approx(0.75, abs=0.07)
    top = corner.max(1, keepdims=True)
    assert (corner > 0.999 * top).mean() > 4 * ((corner > 0) & (corner < 0.999 * top)).mean()


def test_only_fast_displays_mix_their_units_anew_with_each_bout():
    # A steady display is one mixture that grows and shrinks: its units keep their proportions.
    for name in ("shout", "clowning"):
        frames = shown(name, clips=1, seed=3)[0]
        directions = frames[frames.max(1) > 0.2]
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        alike = (directions @ directions.T).min()
        assert alike > 0.999 if name == "shout" else alike < 0.7


def test_fast_displays_go_on_until_the_end_of_the_longest_clip():
    last = list_frame_times(4.0) > 13
    assert (shown("singing")[:, last].max((1, 2)) > 0.1).mean() > 0.97


def test_a_wide_open_mouth_looks_like_happiness_and_surprise():
    # Units over the prior's: happiness 1/2.51, surprise 2/4.66, fear 1.33/5.53, the others and
    # neutral 0; exp(10 score) are 53.8, 73.1, 11.1 and four times 1, of 142.0 in all.
    units = np.zeros((1, 1, 17))
    units[..., find_columns(25, 26)] = 1.0
    looks = dict(zip(EXPRESSIONS, look_like(units)[0, 0, 2:], strict=True))
    assert looks["happiness"] == pytest.approx(53.8 / 142, abs=0.002)
    assert looks["surprise"] == pytest.approx(73.1 / 142, abs=0.002)
    valence, arousal = look_like(units)[0, 0, :2]
    # 0.8, 0.1 and -0.6 of the circumplex; the rest weighs a little.
    assert valence == pytest.approx(0.8 * 0.379 + 0.1 * 0.515 - 0.6 * 0.078, abs=0.02)
    assert arousal > 0.5


def test_a_posed_clip_is_reported_as_what_it_looks_like(quiet_clips):
    def mean(kind, column):
        return np.concatenate([clip.affect for clip in quiet_clips if clip.kind == kind])[
            :, column
        ].mean()

    happiness = 2 + EXPRESSIONS.index("happiness")
    assert mean("grin", happiness) > mean("neutral", happiness) + 0.1
    assert mean("grin", FIRST_UNIT + ACTION_UNITS.index(12)) > 0.3
    assert mean("brows", FIRST_UNIT + ACTION_UNITS.index(1)) > 0.15


# Faces


def test_published_associations_are_taken_and_not_copied():
    for reaction in ("Disgust", "Fear", "Surprise"):
        assert ASSOCIATIONS[reaction] is ACTION_UNIT_PRIOR[reaction.lower()]
    assert tuple(ASSOCIATIONS) == tuple(CIRCUMPLEX) == REACTIONS


@pytest.mark.parametrize("field", ["affect", "true_affect"])
def test_faces_respond_as_the_published_associations_say(clips, field):
    def mean(reaction, *units):
        return mean_units(clips, reaction, *units, field=field)

    assert mean("Amusement", 12) > mean("Disgust", 12) + 0.015
    assert mean("Amusement", 6) > mean("Fear", 6) + 0.015
    assert mean("Surprise", 1, 2) > mean("Amusement", 1, 2) + 0.02
    assert mean("Disgust", 9, 10) > mean("Surprise", 9, 10) + 0.03
    assert mean("Fear", 20) > mean("Amusement", 20) + 0.01
    # Talking moves both units in all clips, and the extractor's noise blurs what is left.
    assert mean("Empathic-Pain", 17, 24) > mean("Surprise", 17, 24) + (
        0.02 if field == "true_affect" else 0.01
    )


def test_valence_has_the_sign_of_the_dominant_reaction(clips):
    for reaction, (valence, _) in CIRCUMPLEX.items():
        dominant = [clip for clip in clips if clip.labels[REACTIONS.index(reaction)] == 1]
        found = np.mean([clip.true_affect[:, 0].mean() for clip in dominant])
        assert abs(valence) < 0.2 or np.sign(found) == np.sign(valence)


def test_a_face_that_never_shows_anything_stays_neutral():
    hidden = replace(Looseness(), shows=(0.0,) * 7)
    for clip in simulate_reactions(20, seed=1, looseness=hidden):
        assert clip.labels.max() == 1
        assert (clip.true_affect[:, 2] == 1).all()


def test_faces_tell_something_of_every_reaction_but_not_everything(clips):
    # Ridge regression on the mean and maximum of each channel, 4,500 clips to fit and 1,500 to test.
    features = np.stack(
        [np.concatenate([clip.affect.mean(0), clip.affect.max(0)]) for clip in clips]
    )
    features = (features - features.mean(0)) / features.std(0)
    labels = np.stack([clip.labels for clip in clips])
    seen, unseen = features[:4500], features[4500:]
    weights = np.linalg.solve(
        seen.T @ seen + 30 * np.eye(52), seen.T @ (labels[:4500] - labels[:4500].mean(0))
    )
    found = [np.corrcoef(unseen @ weights[:, k], labels[4500:, k])[0, 1] for k in range(7)]
    assert min(found) > 0.15
    assert 0.28 < np.mean(found) < 0.43


# The extractor


def report(true_affect, noise, speech=0.0):
    """The report of one clip without any chance in it: no bias, noise or bad frames."""
    silent = replace(
        noise, unit_noise=0.0, expression_noise=0.0, valence_arousal_noise=0.0, bad_frames=0.0
    )
    silent = replace(silent, unsupervised_noise=0.0)
    opening = np.full((*true_affect.shape[:2], 1), speech)
    return report_affect(true_affect, opening, np.zeros((1, 26)), silent, np.random.default_rng(0))


def face(**units):
    """One neutral frame (1, 1, 26) with the units given as `au12=0.4`."""
    frame = np.zeros((1, 1, 26))
    frame[..., 2] = 1.0
    for name, intensity in units.items():
        frame[..., FIRST_UNIT + ACTION_UNITS.index(int(name[2:]))] = intensity
    return frame


def test_a_unit_at_the_threshold_of_presence_is_reported_at_one_half():
    # AU12 is seen whole: -3.2 + 8 * 0.4 = 0 logits, probability 0.5.
    reported = report(face(au12=0.4), ExtractorNoise())
    assert reported[0, 0, FIRST_UNIT + ACTION_UNITS.index(12)] == pytest.approx(0.5)


def test_a_unit_at_rest_is_reported_at_the_floor():
    # 1 / (1 + e^3.2) = 0.0392
    reported = report(face(), ExtractorNoise())
    assert reported[0, 0, FIRST_UNIT + ACTION_UNITS.index(4)] == pytest.approx(0.0392, abs=1e-4)


def test_a_smile_leaks_into_the_cheeks():
    # A quarter of AU12 = 0.8 is seen at AU6: -3.2 + 8 * 0.2 = -1.6 logits, 1 / (1 + e^1.6) = 0.168.
    reported = report(face(au12=0.8), ExtractorNoise())
    assert reported[0, 0, FIRST_UNIT + ACTION_UNITS.index(6)] == pytest.approx(0.168, abs=1e-3)


def test_units_without_supervision_follow_the_expressions():
    # Under the prior AU11 occurs in sadness alone, in 26 % of people; AU23 in anger alone, in 29 %.
    reported = report(face(au11=1.0, au23=1.0), ExtractorNoise())
    expressions = dict(zip(EXPRESSIONS, reported[0, 0, 2:9], strict=True))
    eleven, twenty_three = reported[0, 0, [FIRST_UNIT + place for place in find_columns(11, 23)]]
    assert eleven == pytest.approx(0.26 * expressions["sadness"], rel=1e-4)
    assert twenty_three == pytest.approx(0.29 * expressions["anger"], rel=1e-4)


def test_a_talking_mouth_looks_a_little_like_surprise():
    surprise = 2 + EXPRESSIONS.index("surprise")
    silent, talking = report(face(), ExtractorNoise()), report(face(), ExtractorNoise(), speech=0.8)
    assert silent[0, 0, surprise] < talking[0, 0, surprise] < 0.1


def test_a_graded_unit_is_reported_at_its_target_and_never_at_the_ends_of_the_scale():
    # Targets are 1.25 times the intensity, at most 1; what lies beyond .98 and .02 is told as that.
    plain = ExtractorNoise(
        graded_units=True,
        **{"unit_floor": 0.0, "unit_slope": 1.0, "sensitivity": (1.0,) * 17, "cross_talk": ()},
    )
    reported = report(face(au12=0.3, au25=0.75, au26=1.0), plain)[0, 0, FIRST_UNIT:]
    assert reported[find_columns(12, 25, 26, 4)] == pytest.approx([0.375, 0.9375, 0.98, 0.02])


def test_graded_units_reach_only_part_of_the_landmark_models_scale():
    # AU24 at full strength is .5 of that scale, its target .625: log-odds log(5 / 3).
    unit = UnitErrors(annotated=99, floor=-1.0, slope=0.7, person=0.1, frame=0.2, cross_talk={})
    cross = replace(unit, cross_talk={"AU24": 2.0})
    units = {"AU24": unit, "AU25": cross}
    errors = ExtractorErrors(99, units, None, {"valence": None, "arousal": None}, None, True)
    assert ExtractorErrors.from_json(errors.to_json()).graded_units
    noise = noise_from_errors({"all": errors})
    reported = report(face(au24=1.0), noise)[0, 0, FIRST_UNIT:]
    # AU25 at rest: .02, log-odds -3.892; the cross-talk counts on the measured scale, .5 * 2.
    logits = np.array([-1 + 0.7 * np.log(5 / 3), -1 - 0.7 * 3.892 + 1])
    expected = 1 / (1 + np.exp(-logits))
    assert reported[find_columns(24, 25)] == pytest.approx(expected, abs=1e-4)


def test_two_causes_of_a_unit_add_up_below_one():
    # 1 - 0.5 * 0.5 = 0.75
    assert combine_causes(np.array(0.5), np.array(0.5)) == 0.75


def test_the_numbers_of_the_noise_cannot_be_changed_in_place():
    with pytest.raises(FrozenInstanceError):
        ExtractorNoise().bad_frames = 0.5


# Splits and data sets


def test_no_person_is_in_two_splits():
    splits = hume_like_splits(3, counts=(300, 60, 40))
    subjects = [{clip.subject for clip in split} for split in splits.values()]
    assert list(splits) == ["train", "validation", "test"]
    assert [len(split) for split in splits.values()] == [300, 60, 40]
    assert not (subjects[0] & subjects[1] | subjects[0] & subjects[2] | subjects[1] & subjects[2])


def test_the_people_of_two_splits_are_not_the_same_under_other_names():
    splits = hume_like_splits(3, counts=(2, 2, 2))
    first = [split[0].affect.tobytes() for split in splits.values()]
    assert len(set(first)) == 3


def test_the_data_set_gives_the_clips_back():
    clips = simulate_reactions(30, seed=2, quiet_share=0.3)
    dataset = as_dataset(clips).with_format("numpy")
    assert set(dataset.column_names) == {"clip_id", "subject", "kind", "affect", "labels"}
    for clip, row in zip(clips, dataset, strict=True):
        assert row["clip_id"] == clip.clip_id and row["kind"] == clip.kind
        assert np.array_equal(np.asarray(row["affect"], dtype=np.float32), clip.affect)
        assert np.array_equal(row["labels"], clip.labels)


def test_the_data_set_is_the_one_that_the_librarys_own_way_in_makes():
    for clips in (simulate_reactions(20, seed=2, short_share=0.5), []):
        dataset = as_dataset(clips)
        columns = {name: [getattr(clip, name) for clip in clips] for name in dataset.column_names}
        expected = Dataset.from_dict(columns, features=clip_features(7))
        assert dataset.features == expected.features
        assert dataset.to_dict() == expected.to_dict()


def test_the_data_set_names_its_columns_and_says_that_it_is_simulated():
    description = as_dataset(simulate_reactions(2, seed=2)).info.description
    assert "Simulated" in description
    assert "labels: " + ", ".join(REACTIONS) in description
    assert ", ".join(affect_names()) in description


def test_short_clips_last_less_than_the_corpuss_and_still_show_something():
    short = simulate_reactions(600, seed=5, short_share=1.0)
    lengths = np.array([len(clip.affect) for clip in short])
    # at most 0.8 of 14.98 s at 2 a second: 23.97, so 24 frames with the first one.
    assert lengths.max() <= 24
    assert lengths.min() == 1
    assert np.median(lengths) < 16
    shown = [clip.true_affect[:, 9:].max() for clip in short if len(clip.true_affect) > 4]
    assert np.mean(np.array(shown) > 0.3) > 0.5


def test_only_the_training_split_has_short_clips():
    splits = hume_like_splits(3, (300, 300, 300), short_share=0.5)
    medians = {
        name: np.median([len(clip.affect) for clip in clips]) for name, clips in splits.items()
    }
    assert medians["train"] < medians["validation"] - 2
    assert medians["validation"] == pytest.approx(medians["test"], abs=1.5)
