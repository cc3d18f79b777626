"""The Hub, with its real client: pushing, loading as a stranger does, and everything that can go wrong on the way."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from conftest import TINY_BACKBONE
from hub_client import HubClient, environment
from hub_double import READER, STRANGER, WRITER, HubDouble
from skimage.data import astronaut
from transformers import BertConfig

from mma_mrnnet import (
    MMAConfig,
    MMAModel,
    MMAMRNNetConfig,
    MMAMRNNetForIntensity,
    MMAMRNNetVideoProcessor,
)
from mma_mrnnet.cli import main
from mma_mrnnet.hub.export import export_checkpoint
from mma_mrnnet.video.writing import write_video

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def hub():
    with HubDouble() as double:
        yield double
        assert double.unknown == []  # the client asked for nothing that the double does not know


@pytest.fixture(scope="module")
def user(hub, tmp_path_factory):
    """One process for all tests; every test uses repositories of its own, so that no cache helps it."""
    folder = tmp_path_factory.mktemp("user")
    with HubClient(environment(hub, folder / "home"), folder) as client:
        yield client
    assert not re.search(r"hf_\w+_of_\w+", client.log.read_text())


@pytest.fixture(autouse=True)
def well_again(hub):
    hub.objects.clear()  # large files are known by their content, whoever sent them before
    yield
    hub.recover()
    assert hub.leaked == []  # no token went to the storage of large files


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A stage-2 checkpoint, as training leaves it."""
    extractor = MMAConfig(backbone_config=dict(TINY_BACKBONE), image_size=32)
    config = MMAMRNNetConfig(mma_config=extractor, num_frames=4, hidden_size=8, dense_size=6)
    folder = tmp_path_factory.mktemp("trained")
    MMAMRNNetForIntensity(config).save_pretrained(folder)
    MMAMRNNetVideoProcessor(size={"height": 32, "width": 32}, num_frames=4).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def export(checkpoint, tmp_path_factory):
    """{name: content} of what the checkpoint is exported as."""
    folder = export_checkpoint(checkpoint, tmp_path_factory.mktemp("export"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def name(request):
    """A repository of this test alone."""
    return f"me/{hashlib.sha256(request.node.name.encode()).hexdigest()[:12]}"


def failed(said, *words):
    """Checks that a command gave one clear line that holds `words`, and returns it."""
    *waits, line = said.err.splitlines()
    assert (said.code, said.out) == (1, "")
    assert all(re.fullmatch(r".+; trying again in \d s", wait) for wait in waits)
    assert line.startswith("mma-mrnnet: ")
    assert len(line) < 500
    for word in words:
        assert word in line
    assert not any(token in said.err for token in (WRITER, READER, STRANGER))
    return line


LOAD = """
from mma_mrnnet import load_checkpoint
model, processor = load_checkpoint({place!r})
result = [model.dense.weight.sum().item(), processor.num_frames]
"""


def load(user, place, **settings):
    return user.code(LOAD.format(place=place), **settings)


def not_loaded(said, *words):
    """Checks that loading raised one clear line that holds `words`, and that nothing was loaded."""
    assert str(said.code).startswith("CheckpointError: "), said
    assert "\n" not in said.code
    assert said.result is None
    for word in words:
        assert word in said.code


# Pushing -----------------------------------------------------------------------------------------------------------


def test_a_push_makes_the_repository_and_puts_the_export_into_it_by_one_commit(
    hub, user, checkpoint, export, name
):
    said = user.command("push", checkpoint, name)
    assert (said.code, said.err) == (0, "")
    commit = hub.repositories[name].branches["main"]
    size = sum(map(len, export.values())) / 1e6
    assert (
        said.out
        == f"pushed to {hub.url}/{name} (public): {len(export)} files, {size:.1f} MB, commit {commit[:8]}\n"
    )
    assert hub.repositories[name].head() == {
        **export,
        ".gitattributes": hub.repositories[name].head()[".gitattributes"],
    }
    assert list(hub.repositories[name].messages.values()) == [
        "initial commit",
        "Upload mma_mrnnet model",
    ]
    assert (
        hub.objects[hashlib.sha256(export[WEIGHTS]).hexdigest()] == export[WEIGHTS]
    )  # went as a large file
    assert f"POST /{name}.git/info/lfs/objects/verify" in hub.requests


def test_a_push_of_the_same_commits_nothing_and_says_so(hub, user, checkpoint, name):
    user.command("push", checkpoint, name)
    before = dict(hub.repositories[name].commits)
    said = user.command("push", checkpoint, name)
    assert (said.code, said.out) == (
        0,
        f"{hub.url}/{name} holds exactly this already; nothing was committed\n",
    )
    assert hub.repositories[name].commits == before


def test_what_no_longer_belongs_to_a_push_goes_and_what_people_put_beside_it_stays(
    hub, user, checkpoint, export, name
):
    theirs = {"LICENSE": b"mine", "handler.py": b"# mine", "examples/a.png": b"mine"}
    stale = {
        "results_mma.json": b"{}",
        "preprocessor_config.json": b"{}",
        "model-00001-of-00002.safetensors": b"old",
    }
    config = {"config.json": b'{"model_type": "mma_mrnnet"}'}
    hub.repository(name, {**theirs, **stale, **config})
    said = user.command("push", checkpoint, name, "--message", "Trained again")
    assert said.code == 0
    gone = "model-00001-of-00002.safetensors, preprocessor_config.json, results_mma.json"
    assert said.out.splitlines()[1:] == [f"removed, as no longer part of it: {gone}"]
    assert set(hub.repositories[name].head()) == {*export, *theirs, ".gitattributes"}
    assert list(hub.repositories[name].messages.values()) == ["initial commit", "Trained again"]


def test_the_pipelines_file_goes_where_a_model_of_tables_takes_the_place_of_one_of_videos(
    hub, user, checkpoint, name, tmp_path
):
    config = MMAMRNNetConfig(feature_names=["x", "y"], num_frames=4, hidden_size=8)
    MMAMRNNetForIntensity(config).save_pretrained(tmp_path)
    MMAMRNNetVideoProcessor(num_frames=4).save_pretrained(tmp_path)
    user.command("push", checkpoint, name)
    said = user.command("push", tmp_path, name)
    assert said.out.splitlines()[1:] == ["removed, as no longer part of it: pipeline_mma_mrnnet.py"]
    assert "pipeline_mma_mrnnet.py" not in hub.repositories[name].head()


def test_a_name_alone_is_a_repository_of_ones_own(hub, user, checkpoint, name):
    said = user.command("push", checkpoint, name.split("/")[1])
    assert (said.code, f"pushed to {hub.url}/{name} " in said.out) == (0, True)


def test_a_branch_is_made_and_main_stays_as_it_was(hub, user, checkpoint, export, name):
    hub.repository(name)
    before = hub.repositories[name].head()
    said = user.command("push", checkpoint, name, "--revision", "longer/clips")
    assert (said.code, f"pushed to {hub.url}/{name}/tree/longer/clips " in said.out) == (0, True)
    assert hub.repositories[name].head() == before
    assert set(export) < set(hub.repositories[name].head("longer/clips"))
    failed(
        user.command("push", checkpoint, name, "--revision", "a..b"),
        "Invalid reference",
        "nothing was uploaded",
    )


def test_private_is_private_and_is_refused_where_the_repository_is_public(
    hub, user, checkpoint, name
):
    said = user.command("push", checkpoint, name, "--private")
    assert (said.code, "(private)" in said.out, hub.repositories[name].private) == (0, True, True)
    hub.repository(f"{name}-public")
    said = user.command("push", checkpoint, f"{name}-public", "--private")
    failed(said, "exists and is public", f"{hub.url}/{name}-public/settings")
    assert len(hub.repositories[f"{name}-public"].commits) == 1


BERT = BertConfig().to_json_string().encode()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"config.json": BERT, WEIGHTS: b"theirs"}, "holds a model of type 'bert'"),
        (
            {"config.json": b'{"model_type": "mma"}'},
            "holds a model of type 'mma', and this checkpoint is of type",
        ),
        ({"config.json": b"{broken"}, "files but no model of ours"),
        ({"table.csv": b"1,2"}, "files but no model of ours"),
    ],
    ids=["another model", "the other stage", "a broken config", "other files"],
)
def test_a_repository_of_another_kind_is_left_alone(hub, user, checkpoint, name, files, words):
    before = hub.repository(name, files).head()
    failed(
        user.command("push", checkpoint, name, "--revision", "new"), words, "nothing was uploaded"
    )
    assert hub.repositories[name].commits == {hub.repositories[name].branches["main"]: before}
    assert list(hub.repositories[name].branches) == ["main"]


def test_what_the_hubs_form_puts_into_a_new_repository_is_no_reason_to_refuse_it(
    hub, user, checkpoint, name
):
    hub.repository(name, {"README.md": b"---\nlicense: mit\n---\n"})
    assert user.command("push", checkpoint, name).code == 0


# Pushes that fail --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["a/b/c", "me/x.git", "me/..x", f"me/{'x' * 97}", ""])
def test_a_name_that_the_hub_does_not_accept_is_refused_before_anything_is_sent(
    hub, user, checkpoint, bad
):
    hub.requests.clear()
    failed(user.command("push", checkpoint, bad), "cannot be a repository's name")
    assert hub.requests == []


def test_without_a_checkpoint_nothing_is_made(hub, user, checkpoint, name, tmp_path):
    damaged = shutil.copytree(checkpoint, tmp_path / "damaged")
    (damaged / WEIGHTS).write_bytes(b"")
    failed(user.command("push", damaged, name), str(damaged), "not a checkpoint that can be loaded")
    assert name not in hub.repositories


@pytest.mark.parametrize(
    ("token", "repository", "words"),
    [
        (None, "me/x", "not logged in; run `hf auth login`"),
        ("hf_revoked", "me/x", "does not accept your token"),
        ("hf_revoked", "x", "does not accept your token"),
        (
            READER,
            "me/never-made",
            "no right to do that (You don't have the rights to create a model",
        ),
        (WRITER, "else/never-made", 'under the namespace "else"'),
        (
            WRITER,
            "else/public",
            "no right to do that (You don't have the rights to write to else/public)",
        ),
        (WRITER, "else/gated", "gated (Access to model else/gated is restricted)"),
    ],
)
def test_who_may_not_write_is_told_so_and_nothing_is_written(
    hub, user, checkpoint, token, repository, words
):
    hub.repository("else/public")
    hub.repository("else/gated", {"config.json": b"{}"}, gated=True)
    before = {each: dict(made.commits) for each, made in hub.repositories.items()}
    line = failed(user.command("push", checkpoint, repository, token=token), words)
    assert "hf_revoked" not in line
    assert {each: made.commits for each, made in hub.repositories.items()} == before


def test_a_hub_that_is_out_of_order_for_a_moment_is_waited_for(hub, user, checkpoint, name):
    for path in (
        "models/me/[^/]+$",
        "create$",
        "validate-yaml",
        "/preupload/",
        "/batch",
        "/objects/",
        "/commit/",
    ):
        hub.fail(503, path, times=1)
        hub.fail("close", path, times=1)
    said = user.command("push", checkpoint, name)
    assert (said.code, "pushed to" in said.out) == (0, True)
    assert "the Hub is out of order (it answered 503); trying again in 1 s" in said.err
    assert len(hub.repositories[name].commits) == 2


@pytest.mark.parametrize(
    ("path", "how", "words"),
    [
        ("", 503, ("it answered 503", "try again later", "nothing was uploaded")),
        ("", "close", ("no connection to", "nothing was uploaded")),
        ("repos/create", 429, ("too many requests (429)", "nothing was uploaded")),
        ("validate-yaml", 502, ("it answered 502", "the repository was made, and is empty so far")),
        ("/objects/", 503, ("it answered 503", "the repository was made, and is empty so far")),
        ("/commit/", 503, ("it answered 503", "it is not known whether the commit arrived")),
    ],
)
def test_one_that_stays_so_gives_one_line_and_the_same_command_succeeds_later(
    hub, user, checkpoint, export, name, path, how, words
):
    fault = hub.fail(how, path)
    failed(user.command("push", checkpoint, name), *words)
    assert 5 <= fault.hits <= 8
    assert name not in hub.repositories or set(hub.repositories[name].head()) == {".gitattributes"}
    hub.recover()
    assert user.command("push", checkpoint, name).code == 0
    assert set(export) < set(hub.repositories[name].head())


def test_a_server_that_dies_in_the_middle_of_an_upload_leaves_no_half_and_a_retry_succeeds(
    hub, user, checkpoint, export, name
):
    fault = hub.fail("die", "^/objects/", times=1)
    failed(
        user.command("push", checkpoint, name),
        "no connection to",
        "the repository was made, and is empty so far",
    )
    assert fault.hits == 1
    assert set(hub.repositories[name].head()) == {".gitattributes"}
    assert hashlib.sha256(export[WEIGHTS]).hexdigest() not in hub.objects
    hub.recover()
    assert user.command("push", checkpoint, name).code == 0
    assert hub.repositories[name].head()[WEIGHTS] == export[WEIGHTS]


def test_a_commit_whose_answer_was_lost_is_found_and_not_made_twice(hub, user, checkpoint, name):
    hub.fail("lost", "/commit/", times=1)
    said = user.command("push", checkpoint, name)
    assert (said.code, "pushed to" in said.out) == (0, True)
    assert len(hub.repositories[name].commits) == 2


def test_what_somebody_else_commits_meanwhile_is_not_written_over(hub, user, checkpoint, name):
    theirs = {"config.json": b'{"model_type": "mma_mrnnet"}'}
    hub.repository(name)
    hub.fail(lambda: hub.repositories[name].commit("main", theirs, "theirs"), "/commit/", times=1)
    failed(
        user.command("push", checkpoint, name),
        "somebody else has committed meanwhile",
        "nothing was uploaded",
    )
    assert hub.repositories[name].head() == theirs


def test_offline_a_push_is_refused_by_name_of_the_variable(checkpoint, capsys, settings_kept):
    assert main(["push", str(checkpoint), "me/x"]) == 1  # the tests' own process is offline
    assert "HF_HUB_OFFLINE is set, so nothing was sent" in capsys.readouterr().err


# Loading -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pushed(hub, user, checkpoint, name):
    assert user.command("push", checkpoint, name).code == 0
    return name


@pytest.fixture(scope="module")
def whole(checkpoint):
    """What `load` gives of the checkpoint."""
    return pytest.approx(
        [MMAMRNNetForIntensity.from_pretrained(checkpoint).dense.weight.sum().item(), 4]
    )


def test_predict_takes_a_repository(user, pushed, tmp_path):
    face = cv2.resize(astronaut()[:256, 96:352], (160, 160), interpolation=cv2.INTER_AREA)
    write_video(tmp_path / "a.mp4", [face] * 2, 4)
    said = user.command("predict", tmp_path / "a.mp4", "--model", pushed)
    assert (said.code, "a face in 1 of 1 frames" in said.out) == (0, True)
    failed(
        user.command("predict", tmp_path / "a.mp4", "--model", "me/missing"),
        "me/missing: ",
        "no such repository",
    )


@pytest.mark.parametrize(
    ("token", "repository", "words"),
    [
        (WRITER, "me/missing", "no such repository, or a private one that your token may not see"),
        (
            None,
            "me/missing",
            "no such repository, or a private one (then `hf auth login`, or set HF_TOKEN)",
        ),
        (WRITER, "else/private", "no such repository, or a private one"),
        (WRITER, "else/gated", "gated (Access to model else/gated is restricted); ask for access"),
        (None, "else/gated", "gated"),
        ("hf_revoked", "else/open", "the Hub does not accept your token (revoked or expired?)"),
        (WRITER, "else/empty", "not a checkpoint that can be loaded"),
        (WRITER, "a/b/c", "Repo id must be in the form"),
    ],
)
def test_a_repository_that_cannot_be_read_is_told_in_one_line(
    hub, user, export, token, repository, words
):
    for each, settings in (
        ("private", {"private": True}),
        ("gated", {"gated": True}),
        ("open", {}),
    ):
        hub.repository(f"else/{each}", export, **settings)
    hub.repository("else/empty")
    not_loaded(
        load(user, repository, token=token),
        f"{repository}: no such folder, and as a repository: ",
        words,
    )


BROKEN = [
    ("", 503, "it answered 503"),
    ("", "close", "no connection to"),
    ("/config.json", "close", "no connection to"),
    ("^/[0-9a-f]{64}", 503, "it answered 503"),
    ("^/[0-9a-f]{64}", "cut", "peer closed connection without sending complete message body"),
    ("^/[0-9a-f]{64}", "die", "no connection to"),
    ("/video_preprocessor", 503, "it answered 503"),
    ("/video_preprocessor", "close", "no connection to"),
]


@pytest.mark.parametrize(("path", "how", "words"), BROKEN)
def test_a_broken_download_loads_nothing_says_why_and_a_retry_succeeds(
    hub, user, whole, pushed, path, how, words
):
    hub.fail(how, path)
    not_loaded(load(user, pushed), f"{pushed}: ", words, "; try again later")
    hub.recover()
    assert load(user, pushed).result == whole


def test_a_download_that_is_cut_is_taken_up_again(hub, user, whole, pushed):
    fault = hub.fail("cut", "^/[0-9a-f]{64}", times=3)
    assert load(user, pushed).result == whole
    assert fault.hits == 3


def test_model_and_processor_are_of_one_commit_whatever_is_pushed_in_between(hub, user, pushed):
    old = hub.repositories[pushed].head()
    new = json.loads(old["video_preprocessor_config.json"]) | {"num_frames": 9}
    files = {**old, "video_preprocessor_config.json": json.dumps(new).encode()}
    fault = hub.fail(
        lambda: hub.repositories[pushed].commit("main", files, "new"),
        "/video_preprocessor",
        times=1,
    )
    assert load(user, pushed).result[1] == 4
    assert fault.hits == 1
    assert load(user, pushed).result[1] == 9


def test_a_branch_and_a_commit_can_be_named(hub, user, pushed):
    new = json.loads(hub.repositories[pushed].head()["video_preprocessor_config.json"]) | {
        "num_frames": 9
    }
    files = {
        **hub.repositories[pushed].head(),
        "video_preprocessor_config.json": json.dumps(new).encode(),
    }
    before = hub.repositories[pushed].branches["main"]
    hub.repositories[pushed].commit("longer", files, "longer")
    hub.repositories[pushed].commit("main", files, "new")
    for revision, frames in (("longer", 9), (before, 4), ("main", 9)):
        said = user.code(
            f"import mma_mrnnet\nresult = mma_mrnnet.load_checkpoint({pushed!r}, {revision!r})[1].num_frames"
        )
        assert (said.code, said.result) == (0, frames)
    said = user.code(
        f"import mma_mrnnet\nmma_mrnnet.load_checkpoint({pushed!r}, revision='nowhere')"
    )
    not_loaded(said, pushed, "no such branch, tag or commit")


def test_a_pull_request_needs_no_right_to_write_and_leaves_main_alone(
    hub, user, checkpoint, export, name
):
    user.command("push", checkpoint, name)
    files = hub.repositories[name].head()
    hub.repositories[name].commit("main", {**files, "README.md": b"# Old"}, "edited")
    before = dict(hub.repositories[name].branches)
    said = user.command("push", checkpoint, name, "--create-pr", token=STRANGER)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"pushed to {hub.url}/{name}/discussions/1 (public): ")
    assert hub.repositories[name].branches == {
        **before,
        "refs/pr/1": hub.repositories[name].branches["refs/pr/1"],
    }
    assert export.items() <= hub.repositories[name].head("refs/pr/1").items()


def test_a_pull_request_is_for_main_of_a_repository_that_is_there(hub, user, checkpoint, name):
    failed(user.command("push", checkpoint, name, "--create-pr"), "no such repository")
    assert name not in hub.repositories
    said = user.command("push", checkpoint, name, "--create-pr", "--revision", "x")
    assert "got a revision too: 'x'" in said.err


# As others do it ---------------------------------------------------------------------------------------------------

BY_HAND = """
from pathlib import Path

from huggingface_hub import HfApi, ModelCard, snapshot_download
from mma_mrnnet import MMAModel, MMAMRNNetVideoProcessor
from transformers import AutoConfig

folder, name = {folder!r}, {name!r}
api = HfApi()
assert api.whoami()["name"] == "me"
model = MMAModel.from_pretrained(folder)
model.push_to_hub(name)
model.config.push_to_hub(name)
MMAMRNNetVideoProcessor.from_pretrained(folder).push_to_hub(name)
assert ModelCard.load(name).data.license == "unknown"
api.create_repo(name + "-folder", private=True)
api.upload_folder(repo_id=name + "-folder", folder_path=folder, commit_message="a folder")
ModelCard.load(name + "-folder").validate()
try:
    ModelCard("---\\nlicense: {{a: 1}}\\n---\\n").validate()
except ValueError as error:
    assert "license" in str(error), error
else:
    raise AssertionError("a card that is none was accepted")
result = sorted(path.name for path in Path(snapshot_download(name + "-folder")).iterdir())
"""


def test_the_clients_own_ways_work_too(hub, user, checkpoint, export, name, tmp_path):
    extractor = MMAMRNNetForIntensity.from_pretrained(checkpoint).mma
    extractor.save_pretrained(tmp_path / "one")
    shutil.copy(checkpoint / "video_preprocessor_config.json", tmp_path / "one")
    folder = export_checkpoint(tmp_path / "one", tmp_path / "exported")
    said = user.code(BY_HAND.format(folder=str(folder), name=name))
    assert said.code == 0, said
    assert said.result == sorted([*(path.name for path in folder.iterdir()), ".gitattributes"])
    assert hub.repositories[f"{name}-folder"].private
    assert {"modeling_mma.py", "video_processing_mma_mrnnet.py", WEIGHTS} < set(
        hub.repositories[name].head()
    )
    assert hub.repositories[name].head()[WEIGHTS] == (folder / WEIGHTS).read_bytes()


STRANGER_LOADS = """
import json, os
import torch
from huggingface_hub import snapshot_download
from transformers import AutoModel, AutoVideoProcessor

torch.set_num_threads(1)
name, extractor, *revisions = sys.argv[1:]
seen = {}
for revision in revisions:
    model = AutoModel.from_pretrained(name, trust_remote_code=True, revision=revision).eval()
    processor = AutoVideoProcessor.from_pretrained(name, trust_remote_code=True, revision=revision)
    clip = torch.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).to(torch.uint8)
    batch = processor([clip.numpy()], return_tensors="pt")
    seen[revision] = model(**batch).intensities.tolist()
model = AutoModel.from_pretrained(extractor, trust_remote_code=True).eval()
seen["extractor"] = model(torch.ones(1, 3, 32, 32)).affect.tolist()
seen["files"] = sorted(os.listdir(snapshot_download(name)))
"""

ONLINE = """
assert not [each for each in sys.modules if each.split(".")[0] == "mma_mrnnet"]
print(json.dumps(seen))
"""

OFFLINE = """
# The same process, with the package: what is in the cache loads, what is not says why.
sys.meta_path.pop(0)
sys.path.insert(0, os.environ["CHECKOUT"])
from mma_mrnnet.hub.checkpoints import CheckpointError, load_checkpoint

seen["with the package"] = load_checkpoint(name)[0](**batch).intensities.tolist()
try:
    load_checkpoint("me/never-downloaded")
except CheckpointError as error:
    seen["not in the cache"] = str(error)
print(json.dumps(seen))
"""


NOT_INSTALLED = """
import sys
from importlib.abc import MetaPathFinder

class NotInstalled(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "mma_mrnnet":
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)

sys.meta_path.insert(0, NotInstalled())
"""


def run_stranger(script, variables, folder, *words):
    done = subprocess.run(
        [sys.executable, "-c", NOT_INSTALLED + STRANGER_LOADS + script, *words],
        env=variables,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_stranger_loads_branches_and_commits_and_again_offline_when_the_hub_is_gone(
    hub, user, checkpoint, pushed, tmp_path, request
):
    changed = MMAMRNNetForIntensity.from_pretrained(checkpoint)
    with torch.no_grad():
        changed.dense.weight.mul_(3)
    shutil.copytree(checkpoint, tmp_path / "changed")
    changed.save_pretrained(tmp_path / "changed")
    assert user.command("push", tmp_path / "changed", pushed, "--revision", "bigger").code == 0
    changed.mma.save_pretrained(tmp_path / "one")
    shutil.copy(checkpoint / "video_preprocessor_config.json", tmp_path / "one")
    assert user.command("push", tmp_path / "one", f"{pushed}-one").code == 0
    assert user.command("push", tmp_path / "changed", pushed).code == 0
    first = list(hub.repositories[pushed].commits)[1]

    variables = environment(hub, tmp_path / "home")  # without a token
    words = (pushed, f"{pushed}-one", "main", "bigger", first)
    seen = run_stranger(ONLINE, variables, tmp_path, *words)
    processor = MMAMRNNetVideoProcessor.from_pretrained(checkpoint)
    batch = processor(
        [np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).astype(np.uint8)], return_tensors="pt"
    )
    wanted = {
        revision: MMAMRNNetForIntensity.from_pretrained(place).eval()(**batch).intensities.tolist()
        for revision, place in (("main", tmp_path / "changed"), (first, checkpoint))
    }
    assert wanted["main"] != wanted[first]
    extractor = MMAModel.from_pretrained(tmp_path / "one").eval()
    assert seen["extractor"] == extractor(torch.ones(1, 3, 32, 32)).affect.tolist()
    assert {each: seen[each] for each in ("main", "bigger", first)} == {
        **wanted,
        "bigger": wanted["main"],
    }
    assert WEIGHTS in seen["files"]

    hub.stop()
    offline = {**variables, "HF_HUB_OFFLINE": "1", "CHECKOUT": str(request.config.rootpath)}
    again = run_stranger(OFFLINE, offline, tmp_path, *words)
    assert again.pop("with the package") == wanted["main"]
    assert "HF_HUB_OFFLINE is set, and it is not in the cache" in again.pop("not in the cache")
    assert again == seen
