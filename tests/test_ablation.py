"""Ablations: the variants, what a study keeps, the numbers drawn from its runs, and the command from end to end."""

import json
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pytest
from filelock import FileLock

from mma_mrnnet.analysis.ablation import ablate, train_clips
from mma_mrnnet.analysis.study import RUN, RunRecord, list_settings, parse_study, write_record
from mma_mrnnet.analysis.study_page import make_table
from mma_mrnnet.analysis.study_summary import (
    PREDICTIONS,
    Bounds,
    Difference,
    LengthGroup,
    Run,
    StudySummary,
    TransferScore,
    VariantRow,
    compare,
    find_length_edges,
    resample_people,
    summarise_study,
)
from mma_mrnnet.analysis.variants import QUESTIONS, choose_variants, list_variants
from mma_mrnnet.cli import main
from mma_mrnnet.training.arguments import TrainArguments, parse_arguments

BASE = ["--data", "simulated", "--mma", "somewhere", "--clips", "64", "32", "32"]


def base(folder):
    return parse_arguments(["--stage", "mrnn", "--output", str(folder), *BASE])


def fake_run(intensities, labels, people, seed=0):
    record = RunRecord("full", seed, 1.0, ["joy"], "test", {}, 1, {}, {}, {})
    arrays = {"intensities": intensities, "labels": labels}
    arrays = {name: np.array(values, float) for name, values in arrays.items()}
    return Run(record, {**arrays, "people": np.array(people)})


# Variants ----------------------------------------------------------------------------------------------------------


def test_every_variant_is_the_base_with_settings_that_train_py_accepts(tmp_path):
    names = {field.name for field in fields(TrainArguments)}
    stage1 = parse_arguments(["--stage", "mma", "--data", "drawn", "--output", str(tmp_path)])
    for variant in list_variants(base(tmp_path), ["simulated:other"]):
        assert set(variant.settings) <= names
        changed = replace(base(tmp_path), **variant.settings)
        assert not variant.settings or changed != base(tmp_path)
        if variant.extractor is not None:
            assert replace(stage1, **variant.extractor) != stage1


def test_variants_have_names_of_their_own_and_someone_to_be_compared_with(tmp_path):
    variants = list_variants(base(tmp_path), ["simulated:other", "clips:a b"])
    names = [variant.name for variant in variants]
    assert len(set(names)) == len(names)
    assert all(variant.against in names for variant in variants)
    assert {variant.question for variant in variants} == {"", *QUESTIONS}
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-+") for name in names), (
        "a name is a folder"
    )


def test_t_and_rate_are_halved_and_doubled_from_the_users_own(tmp_path):
    variants = {
        variant.name: variant
        for variant in list_variants(replace(base(tmp_path), num_frames=90, sampling_fps=6.0))
    }
    assert variants["t-half"].settings == {"num_frames": 45}
    assert variants["rate-double"].settings == {"sampling_fps": 12.0, "num_frames": 180}
    assert variants["truncate"].settings["num_frames"] == 45


def test_a_chosen_variant_brings_along_what_it_is_compared_with(tmp_path):
    variants = list_variants(base(tmp_path))
    chosen = choose_variants(variants, list(QUESTIONS), [], ["single-au"])
    assert [variant.name for variant in chosen] == ["full", "au", "single-au"]


@pytest.mark.parametrize(
    ("questions", "names", "said"), [(["depth"], [], "--questions"), ([], ["none"], "--variants")]
)
def test_a_question_or_variant_that_there_is_not_is_named(tmp_path, questions, names, said):
    with pytest.raises(ValueError, match=f"{said} must be among .*; got"):
        choose_variants(list_variants(base(tmp_path)), list(QUESTIONS), questions, names)


# Numbers -----------------------------------------------------------------------------------------------------------


def test_an_interval_is_students_over_the_seeds():
    # Mean .2, standard deviation .1, t of 2 degrees 4.303: half a width of 4.303 * .1 / 3 ** .5 = .2484.
    found = compare([0.1, 0.2, 0.3])
    assert found.mean == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.2 - 0.24843, 0.2 + 0.24843), abs=1e-4)


def test_an_interval_of_one_seed_or_none_has_no_bounds():
    assert compare([0.1]) == Difference(0.1, None, None, 1)
    assert compare([]) == Difference(None, None, None, 0)


def test_an_interval_over_people_is_wider_where_each_has_many_clips():
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(20), 20)
    labels = rng.standard_normal((20, 1))[
        person
    ]  # twenty people who say the same twenty times: twenty clips' worth
    better, worse = (labels + noise * rng.standard_normal((20, 1))[person] for noise in (0.3, 1.5))

    def width(people):
        found = resample_people(
            [(fake_run(better, labels, people), fake_run(worse, labels, people))]
        )
        assert found.low < found.high
        return found.high - found.low

    assert width(person) > 2 * width(np.arange(400))


def test_targets_without_labels_count_neither_in_a_score_nor_in_its_interval():
    labels = np.random.default_rng(0).random((30, 3))
    labels[:, 1], labels[:, 2] = np.nan, 0.5
    perfect = fake_run(labels[:, [0, 0, 0]], labels, range(30))
    turned = fake_run(-labels[:, [0, 0, 0]], labels, range(30))
    assert perfect.score() == pytest.approx(1.0)
    bounds = resample_people([(perfect, turned)])
    assert (bounds.low, bounds.high) == pytest.approx((2.0, 2.0))


def test_seeds_with_other_clips_have_no_interval_over_people():
    pair = (fake_run([[0], [1]], [[0], [1]], "ab"), fake_run([[1], [1]], [[0], [1]], "ab"))
    longer = tuple(fake_run([[0], [1], [1]], [[0], [1], [0]], "abc") for _ in range(2))
    assert resample_people([pair, longer]) is None


def test_two_runs_on_different_clips_have_no_interval_over_people():
    one, other = fake_run([[0], [1]], [[0], [1]], "ab"), fake_run([[0], [1]], [[0], [0.5]], "ab")
    assert resample_people([(one, other)]) is None
    assert resample_people([]) is None


def test_a_difference_is_taken_between_runs_of_the_same_seed(tmp_path):
    study = parse_study(tmp_path, BASE, None, [])
    by_name = {variant.name: variant for variant in study.variants}
    labels = np.linspace(0, 1, 40)[:, None]
    noise = np.random.default_rng(0).standard_normal((40, 1))
    # Every seed has noise of its own size; seed 0 of the other variant is missing.
    for name, seed, size in (("full", 0, 0.1), ("full", 1, 3.0), ("mse", 1, 0.2)):
        folder = study.run_folder(by_name[name], seed)
        folder.mkdir(parents=True)
        record = RunRecord(name, seed, 1.0, ["joy"], "test", {"data": ""}, 1, {}, {}, {})
        write_record(folder / RUN, record)
        arrays = {"intensities": labels + size * noise, "labels": labels}
        extra = {"seconds": np.ones(40), "people": np.arange(40).astype(str)}
        np.savez(folder / PREDICTIONS, **arrays, **extra)
    rows = {row.name: row for row in summarise_study(study, study.variants, {}).variants}
    assert rows["full"].seeds == [0, 1]
    assert rows["mse"].difference.seeds == 1
    expected = rows["mse"].mean_pearson[0] - rows["full"].mean_pearson[1]
    assert rows["mse"].difference.mean == pytest.approx(expected)
    assert expected > 0.3


def test_length_groups_hold_every_clip_of_every_seed_once():
    edges = find_length_edges(np.repeat([4.0, 5, 6, 7, 8, 9, 10], 60))
    assert len(edges) > 3
    other_seed = np.array([1.0, 5, 6.5, 10, 30])
    counts = [
        int(((other_seed > low) & (other_seed <= high)).sum()) for low, high in pairwise(edges)
    ]
    assert sum(counts) == 5
    assert len(find_length_edges(np.full(500, 3.0))) == 2, (
        "clips that are all as long are one group"
    )
    assert len(find_length_edges(np.arange(59.0))) == 2, (
        "two groups of fewer than 30 clips would say nothing"
    )


# Pages -------------------------------------------------------------------------------------------------------------


def row(name, question, difference, **more):
    return VariantRow(
        name=name,
        question=question,
        what=f"{name} in words",
        against=None if name == "full" else "full",
        seeds=[0, 1, 2],
        mean_pearson=[],
        mean=0.4 + difference[0],
        sd=0.01,
        length_correlation=0.05,
        difference=None if name == "full" else Difference(*difference, seeds=3),
        **more,
    )


def summary_of(*rows):
    return StudySummary(
        data={"data": "clips"},
        evaluated_on="test",
        evaluated_clips=10,
        labels=["joy"],
        seeds=[0, 1, 2],
        data_differ_by_seed=False,
        resampled="people",
        settings={"clips": {}, "frames": None},
        length_of_clips_and_labels=0.1,
        variants=[row("full", "", (0.0, 0.0, 0.0)), *rows],
        extractors=[],
        left_out={},
        training_hours=1.0,
        questions=dict(QUESTIONS),
    )


def test_a_table_marks_the_differences_whose_interval_leaves_0_out():
    summary = summary_of(
        row("mse", "loss", (-0.0314, -0.041, -0.02)), row("ccc", "loss", (0.0104, -0.001, 0.0218))
    )
    lines = make_table(summary, "loss").splitlines()
    assert lines[-2] == "| `mse` | mse in words | 3 | .369 (.010) | -.031 [-.041, -.020] ▼ |"
    assert lines[-1] == "| `ccc` | ccc in words | 3 | .410 (.010) | +.010 [-.001, +.022] |"


def test_a_difference_over_people_has_a_column_where_there_is_one():
    people = Bounds(-0.05, 0.03)
    last = row("last", "length", (-0.02, -0.03, -0.01), difference_over_people=people)
    text = make_table(summary_of(last), "length")
    assert "| 95 % over people | correlation with length |" in text
    assert "| -.020 [-.030, -.010] ▼ | [-.050, +.030] | .050 |" in text
    assert "of a label .100" in text


def test_a_summary_is_read_back_as_it_was_written():
    transfer = {"clips:there": TransferScore(0.2, None, Difference(0.1, seeds=1))}
    group = LengthGroup(None, 3.0, 40.0, 0.3, Difference())
    written = summary_of(row("mse", "loss", (0.1, 0.0, 0.2), transfer=transfer, by_length=[group]))
    content = json.loads(json.dumps(written.to_json()))
    assert content["format"] == 1
    assert StudySummary.from_json(content) == written


def test_a_summary_written_before_formats_had_numbers_is_read():
    content = summary_of().to_json()
    del content["format"], content["questions"]
    assert StudySummary.from_json(content).full.mean == 0.4


# Studies -----------------------------------------------------------------------------------------------------------


def test_a_folder_holds_one_study(tmp_path):
    parse_study(tmp_path / "study", BASE, None, ["simulated:other"]).claim_folder()
    parse_study(
        tmp_path / "study", [*BASE, "--workers", "1"], None, ["simulated:other"]
    ).claim_folder()
    with pytest.raises(ValueError, match=r"--epochs 30, now 3\. Take another --out"):
        parse_study(
            tmp_path / "study", [*BASE, "--epochs", "3"], None, ["simulated:other"]
        ).claim_folder()
    with pytest.raises(ValueError, match=r"--transfer \['simulated:other'\], now \[\]"):
        parse_study(tmp_path / "study", BASE, None, []).claim_folder()


def test_a_folder_with_other_things_is_not_taken(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="is not empty and holds no study"):
        parse_study(tmp_path, BASE, None, []).claim_folder()


def record_of(args):
    return RunRecord("full", 0, 1.0, [], "test", {}, 1, {}, {}, list_settings(args))


def test_a_run_with_other_settings_is_not_taken_for_done(tmp_path):
    study = parse_study(tmp_path, BASE, None, [])
    full = study.variants[0]
    args = study.run_arguments(full, 0)
    folder = study.run_folder(full, 0)
    folder.mkdir(parents=True)
    assert not study.is_done(RunRecord, args)
    write_record(
        folder / RUN, replace(record_of(args), settings=list_settings(args) | {"epochs": 3})
    )
    with pytest.raises(ValueError, match="written with other settings"):
        study.is_done(RunRecord, args)


def test_settings_are_compared_to_the_last_digit(tmp_path):
    words = [*BASE, "--learning_rate", "0.00031623"]
    study = parse_study(tmp_path / "study", words, None, [])
    study.claim_folder()
    study.claim_folder()
    full = study.variants[0]
    args, folder = study.run_arguments(full, 0), study.run_folder(full, 0)
    folder.mkdir(parents=True)
    write_record(folder / RUN, replace(record_of(args), seconds=1 / 3))
    assert study.is_done(RunRecord, args)
    assert json.loads((folder / RUN).read_text())["seconds"] == 0.3333


def test_a_study_that_trains_extractors_can_be_moved(tmp_path):
    words, frames = ["--data", "hume:somewhere"], ["--data", "drawn"]
    parse_study(tmp_path / "one", words, frames, []).claim_folder()
    (tmp_path / "one").rename(tmp_path / "other")
    parse_study(tmp_path / "other", words, frames, []).claim_folder()


def test_an_extractor_that_changed_needs_another_study(tmp_path, extractor):
    words = ["--data", "simulated", "--mma", str(extractor)]
    parse_study(tmp_path / "study", words, None, []).claim_folder()
    weights = extractor / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ValueError, match="written with other settings: --mma weights"):
        parse_study(tmp_path / "study", words, None, []).claim_folder()


def test_other_data_are_looked_at_before_anything_is_trained(tmp_path, extractor):
    study = parse_study(
        tmp_path / "study",
        ["--data", "simulated", "--mma", str(extractor)],
        None,
        ["simulated:nosuch"],
    )
    with pytest.raises(ValueError, match="simulated domain must be one of"):
        ablate(study, names=["mse"], seeds=1)
    assert not study.folder.exists()


def test_two_commands_do_not_work_in_one_study(tmp_path, extractor):
    study = small_study(tmp_path / "study", extractor)
    study.claim_folder()
    with (
        FileLock(study.folder / ".lock"),
        pytest.raises(ValueError, match="another command is at work there"),
    ):
        ablate(study, names=["mse"], seeds=1)


def test_what_equals_the_full_model_is_not_trained_again(tmp_path):
    variants = list_variants(
        replace(base(tmp_path), intensity_loss="ccc", temporal_pooling="padded")
    )
    names = {variant.name: variant for variant in variants}
    assert names.keys() & {"ccc", "padded"} == set()
    assert names["full"].what == "all affect, pooling padded, concordance loss"
    assert "mse" in names


def test_a_variant_that_the_base_forbids_does_not_stop_the_others(tmp_path):
    study = parse_study(tmp_path, [*BASE, "--strict_routing", "true"], None, [])
    by_name = {variant.name: variant for variant in study.variants}
    assert "strict" not in by_name
    assert "temporal_pooling mask" in study.find_obstacle(by_name["last"])
    assert study.find_obstacle(by_name["mse"]) is None


def test_two_places_that_would_share_a_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two of them would have one name"):
        parse_study(tmp_path, BASE, None, ["clips:/a/b", "clips:/a-b"])


def test_an_extractor_is_either_given_or_trained(tmp_path):
    with pytest.raises(ValueError, match="either takes an extractor or trains its own"):
        parse_study(tmp_path, BASE, ["--data", "drawn"], [])


def test_variants_that_need_what_is_not_there_say_what(tmp_path):
    study = parse_study(tmp_path, BASE, None, [])
    reasons = {variant.name: study.find_obstacle(variant) for variant in study.variants}
    assert reasons["full"] is None
    assert "needs --frames" in reasons["dm-off"]


def test_each_kind_of_extractor_has_a_folder_of_its_own(tmp_path):
    study = parse_study(tmp_path, ["--data", "hume:somewhere"], ["--data", "drawn"], [])
    by_name = {variant.name: variant for variant in study.variants}
    folders = {name: study.extractor_folder(variant, 0) for name, variant in by_name.items()}
    assert folders["full"] == folders["padded"] == folders["au"]
    assert (
        len({folders[name] for name in ("full", "single-au", "dm-off", "dm-bce", "co-soft")}) == 5
    )
    assert study.extractor_arguments(by_name["single-au"], 0).channels == ["action_units"]
    assert study.run_arguments(by_name["single-au"], 0).mma == str(folders["single-au"] / "model")


# From end to end ---------------------------------------------------------------------------------------------------


@pytest.fixture
def extractor(tmp_path, tiny_mma, tiny_processor):
    folder = tmp_path / "mma"
    tiny_mma.save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


def small_study(folder, extractor, *words):
    given = ["--data", "simulated", "--mma", str(extractor), "--clips", "64", "32", "40"]
    given += [
        "--epochs",
        "1",
        "--batch_size",
        "32",
        "--hidden_size",
        "4",
        "--learning_rate",
        "0.01",
        *words,
    ]
    return parse_study(folder, given, None, ["simulated:lengths"])


@pytest.mark.slow
def test_a_study_is_trained_reported_and_gone_on_with(tmp_path, extractor):
    folder, told = tmp_path / "study", []
    study = small_study(folder, extractor)
    left_out = ablate(study, questions=["routing"], seeds=2, jobs=2, tell=told.append)
    assert left_out == {}
    assert len(told) == 4, "full and strict with two seeds each"
    summary = json.loads((folder / "ablations.json").read_text())
    rows = {row["name"]: row for row in summary["variants"]}
    difference = np.subtract(rows["strict"]["mean_pearson"], rows["full"]["mean_pearson"]).mean()
    assert rows["strict"]["difference"]["mean"] == pytest.approx(difference, abs=1e-4)
    assert rows["strict"]["difference"]["seeds"] == 2
    assert set(rows["strict"]["transfer"]) == {"simulated:lengths"}
    assert "`strict`" in (folder / "ablations.md").read_text()
    assert (folder / "ablations.png").read_bytes().startswith(b"\x89PNG")
    assert not [*folder.glob("runs/*/*/training/model")]

    times = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/*/run.json")}
    told.clear()
    ablate(study, names=["mse"], seeds=1, jobs=1, tell=told.append)
    assert told == ["[1/1] mse, seed 0"]
    assert all(path.stat().st_mtime_ns == written for path, written in times.items())
    rows = {
        row["name"]: row for row in json.loads((folder / "ablations.json").read_text())["variants"]
    }
    assert rows["mse"]["difference"]["seeds"] == 1
    assert len(rows["full"]["seeds"]) == 2, "what an earlier call trained is reported too"


@pytest.mark.slow
def test_a_run_that_cannot_be_does_not_stop_the_others(tmp_path, extractor):
    study = small_study(tmp_path / "study", extractor)
    missing = replace(study.base, mma=str(tmp_path / "nothing"))
    told = []
    with pytest.raises(
        ValueError, match=r"no finished run of the full model; --mma .*not a checkpoint"
    ):
        ablate(replace(study, base=missing), names=["mse"], seeds=1, tell=told.append)
    assert len(told) == 2
    assert all(": --mma" in line for line in told)


def tables_of_features(folder, columns):
    """40 clips of two features, the same whatever the order of the columns."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file_name,split,joy"]
    for number in range(40):
        values = {"timestamp": np.arange(6) / 2, "smile": rng.random(6), "frown": rng.random(6)}
        rows = [",".join(f"{values[name][row]:.3f}" for name in columns) for row in range(6)]
        (folder / f"{number}.csv").write_text("\n".join([",".join(columns), *rows]) + "\n")
        lines.append(f"{number}.csv,{'train' if number < 20 else 'validation'},{rng.random():.3f}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_other_tables_are_read_in_the_models_own_order_of_columns(tmp_path):
    own = tables_of_features(tmp_path / "own", ["timestamp", "smile", "frown"])
    turned = tables_of_features(tmp_path / "turned", ["timestamp", "frown", "smile"])
    words = ["--data", f"clips:{own}", "--epochs", "1", "--batch_size", "16", "--hidden_size", "4"]
    study = parse_study(tmp_path / "study", words, None, [f"clips:{turned}"])
    full = study.variants[0]
    train_clips(study, full, 0)
    row = summarise_study(study, [full], {}).variants[0]
    assert row.transfer[f"clips:{turned}"].mean == pytest.approx(row.mean)


@pytest.mark.slow
def test_on_tables_of_features_what_needs_an_extractor_is_left_out(tmp_path):
    folder = tables_of_features(tmp_path / "clips", ["timestamp", "smile", "frown"])
    words = [
        "--data",
        f"clips:{folder}",
        "--epochs",
        "1",
        "--batch_size",
        "16",
        "--hidden_size",
        "4",
    ]
    study, told = parse_study(tmp_path / "study", words, None, []), []
    left_out = ablate(study, names=["va", "mse"], seeds=1, tell=told.append)
    assert left_out.keys() == {"va"}
    assert "channels" in left_out["va"]
    text = (study.folder / "ablations.md").read_text()
    assert "validation clips, which chose the best epochs too" in text
    assert "| `mse` |" in text
    assert "Not trained, or not with every seed: `va` (" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"names": ["dm-off"]}, "--variants dm-off: needs --frames"),
        ({"questions": ["transfer"]}, "--questions transfer needs --transfer"),
    ],
)
def test_what_is_asked_for_by_name_and_cannot_be_is_refused_before_anything_is_trained(
    tmp_path, words, said
):
    study = parse_study(tmp_path / "study", BASE, None, [])
    with pytest.raises(ValueError, match=said):
        ablate(study, **words)
    assert not study.folder.exists()


def test_a_damaged_prediction_file_is_an_error_that_names_it(tmp_path, extractor):
    study = small_study(tmp_path / "study", extractor)
    full = study.variants[0]
    train_clips(study, full, 0)
    path = study.run_folder(full, 0) / PREDICTIONS
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"predictions\.npz: damaged"):
        summarise_study(study, [full], {})


def test_the_list_of_variants_needs_no_study(capsys):
    assert main(["ablate", "--list"]) == 0
    out = capsys.readouterr().out
    assert "rate-double" in out
    assert "mask layer or another way" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ablate", "--", "--data", "simulated"], "needs --out"),
        (
            ["ablate", "--out", "x", "--questions", "depth", "--", *BASE],
            "--questions must be among",
        ),
        (
            ["ablate", "--out", "x", "--frames", "--data drawn", "--", *BASE],
            "either takes an extractor or trains",
        ),
    ],
)
def test_words_that_make_no_study_are_refused_in_one_line(
    words, said, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert said in err
    assert not (tmp_path / "x").exists()
