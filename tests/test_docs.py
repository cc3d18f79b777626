"""Every code block of README and docs runs as written, or says above it why it does not.

Python blocks of a page run in order in one namespace, commands line by line, all in one folder.
A `text` block right behind a code block is what that block prints. Blocks that are not run are
parsed and counted.
"""

import contextlib
import importlib.util
import io
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mma_mrnnet import cli
from mma_mrnnet.analysis.study import parse_study
from mma_mrnnet.cli.demo import DURATION_S, FPS, astronaut, camera_move
from mma_mrnnet.train import main as train
from mma_mrnnet.training.arguments import parse_arguments
from mma_mrnnet.video.writing import write_video

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE, FORMATS = {"python", "sh"}, {"text", "csv", "json", "yaml", "bibtex"}

NOT_RUN = {
    **{"evaluation.md": 3, "own_data.md": 1, "predict.md": 2, "quick_start.md": 2},
    **{"reports.md": 3, "sharing.md": 5, "training.md": 6},
}
"""Number of blocks of each page marked `*Not run here: REASON.*`; count a new one here."""

RUN_BY_CI = ("make demo", "make test", ". .venv/bin/activate")
"""Lines that `.ci/run` itself runs, in a fresh environment, on a checkout of its own."""

TOLERANCE = 0.02  # processors differ in the last digits of a float
AFTER_TRAINING = 0.1  # and training lets such differences grow


@dataclass(frozen=True)
class Block:
    """A fenced block: its place, language and code, why it is not run, and what it prints."""

    place: str
    language: str
    code: str
    reason: str | None
    output: str | None


def blocks(page):
    text = page.read_text("utf-8")
    found, before = [], 0
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        between = text[before : match.start()].strip()
        mark = (
            re.fullmatch(r"\*Not run here: (.+)\.\*", between.splitlines()[-1]) if between else None
        )
        place = f"{page.name}:{text[: match.start()].count(chr(10)) + 1}"
        prints = match[1] == "text" and before > 0 and not between
        if prints and found[-1].language in CODE:
            found[-1] = Block(**{**vars(found[-1]), "output": match[2]})
        found.append(Block(place, match[1], match[2], mark and mark[1], None))
        before = match.end()
    return found


def code_blocks(page):
    return [block for block in blocks(page) if block.language in CODE]


def lines(block):
    """A sh block's commands without comments, continued lines joined."""
    joined = block.code.replace("\\\n", " ")
    return [line for raw in joined.splitlines() if (line := re.sub(r"(^|\s)#.*", "", raw).strip())]


# What stands in the pages -------------------------------------------------------------------------


def test_every_fence_says_in_which_language_it_is():
    for page in PAGES:
        assert page.read_text("utf-8").count("\n```") == 2 * len(blocks(page)), page.name
        assert {block.language for block in blocks(page)} <= CODE | FORMATS, page.name


def test_blocks_that_are_not_run_are_counted_and_each_gives_a_reason():
    marked = {page.name: [block for block in code_blocks(page) if block.reason] for page in PAGES}
    assert {name: len(found) for name, found in marked.items() if found} == NOT_RUN
    for found in marked.values():
        assert all(len(block.reason.split()) >= 3 for block in found)
    marks = sum(page.read_text("utf-8").count("*Not run here:") for page in PAGES)
    assert marks == sum(NOT_RUN.values())  # none stands where no block follows


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_not_run_are_words_that_exist(page):
    for block in code_blocks(page):
        if block.reason and block.language == "sh":
            for line in lines(block):
                check_words(line)
        elif block.reason:
            compile(block.code, block.place, "exec")


def check_words(line):
    """Parses what is ours of a command line; `...` stands for a reader's own settings."""
    words = shlex.split(line)
    if words[0] == "srun":
        words = shlex.split(words[-1])  # what each machine's shell is given
    if "mma-mrnnet" in words and words[0] != "pip":
        command, values = cli.parse_words(words[words.index("mma-mrnnet") + 1 :])
        if command == "ablate":
            frames = values["frames"] and shlex.split(values["frames"])
            parse_study(Path("x"), values["words"], frames, values["transfer"] or [])
    elif "train.py" in words:
        own = words[words.index("train.py") + 1 :]
        place = own.index("...") if "..." in own else None
        if place is not None:
            own[place : place + 1] = ["--stage", "mma", "--data", "drawn", "--output", "x"]
        parse_arguments(own)


def test_the_commands_that_ci_runs_itself_are_run_there():
    script, makefile = (
        (ROOT / ".ci" / "run").read_text("utf-8"),
        (ROOT / "Makefile").read_text("utf-8"),
    )
    for target in ("demo", "test"):
        assert f"make {target}\n" in script
        assert f"\n{target}:" in makefile


def test_a_wrong_word_in_a_command_that_is_not_run_would_be_seen():
    check_words("accelerate launch --multi_gpu train.py --expect_processes 4 ...")
    check_words("mma-mrnnet ablate --out x -- --data simulated --mma runs/mma/model")
    for line in ("accelerate launch train.py --stage mma --data drawn --output x --epoch_count 3",):
        with pytest.raises(ValueError, match="epoch_count"):
            check_words(line)
    with pytest.raises(cli.UsageError, match="no-such-option"):
        check_words("mma-mrnnet predict clip.mp4 --frames x.csv --no-such-option")


# The pages, run -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "astronaut.mp4"
    return write_video(path, camera_move(astronaut(), FPS * DURATION_S), FPS)


@pytest.fixture
def a_checkout(tmp_path, demo_clip, monkeypatch):
    """Make a folder with the files after `make demo`, and those that stand for the reader's own."""
    for name in ("mma_mrnnet", "train.py", "examples", "benchmarks", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "demo_output").mkdir()
    shutil.copy(demo_clip, tmp_path / "demo_output")
    write_video(tmp_path / "new_clip.mp4", [face(0.8)] * 6, fps=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def face(light):
    return (astronaut()[:240, 100:340] * light).astype(np.uint8)


def own_clips(folder):
    """Make `clips/` of docs/own_data.md: 16 clips to train on, 4 to validate; and `videos/`."""
    for split, count in (("train", 16), ("validation", 4)):
        (folder / "clips" / split).mkdir(parents=True)
        rows = ["file_name,subject,joy,boredom"]
        for number in range(1, count + 1):
            light = 0.4 + 0.6 * number / count
            write_video(folder / "clips" / split / f"anna_{number}.mp4", [face(light)] * 2, fps=2)
            boredom = "" if number % 4 == 0 else light
            rows.append(f"anna_{number}.mp4,{split}-{number},{number / count},{boredom}")
        (folder / "clips" / split / "metadata.csv").write_text("\n".join(rows) + "\n")
    (folder / "videos").mkdir()
    write_video(folder / "videos" / "one.mp4", [face(1.0)] * 4, fps=4)


def openface_tables(folder):
    """`tables/`, what OpenFace 2 would have written for such clips, cut down to a few columns."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 16), ("validation", 4)):
        (folder / "tables" / split).mkdir(parents=True)
        rows = ["file_name,subject,joy,boredom"]
        for number in range(1, count + 1):
            openface_table(folder / "tables" / split / f"anna_{number}.csv", rng)
            rows.append(
                f"anna_{number}.csv,{split}-{number},{rng.uniform():.2f},{rng.uniform():.2f}"
            )
        (folder / "tables" / split / "metadata.csv").write_text("\n".join(rows) + "\n")
    openface_table(folder / "new_clip.csv", rng)


def openface_table(path, rng):
    rows = ["frame, face_id, timestamp, confidence, success, gaze_angle_x, pose_Rx, AU12_r, AU12_c"]
    for frame in range(1, 9):
        values = ", ".join(f"{value:.3f}" for value in rng.uniform(size=4))
        rows.append(f"{frame}, 0, {(frame - 1) / 2:.3f}, 0.98, 1, {values}")
    path.write_text("\n".join(rows) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("settings_kept")
def test_the_code_of_a_page_runs_as_written(page, a_checkout):
    if page.name == "own_data.md":
        own_clips(a_checkout)
        openface_tables(a_checkout)
    run_page(page)
    if page.name == "README.md":
        assert (a_checkout / "results.csv").is_file()
        assert (a_checkout / "frames.csv").is_file()


def run_page(page):
    namespace = {"__name__": "__main__"}
    for block in code_blocks(page):
        if block.reason:
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            if block.language == "python":
                exec(compile(block.code, block.place, "exec"), namespace)
            else:
                for line in lines(block):
                    printed.write(run_line(line, block.place))
        if block.output is not None:
            assert_prints(printed.getvalue(), block)


def run_line(line, place):
    """Runs a command as written and returns what it prints, if not written to our own stdout."""
    if line in RUN_BY_CI:
        return ""
    words = shlex.split(line)
    if words[0] == "mma-mrnnet" and not set(line) & set("|><&*$"):
        assert cli.main(words[1:]) == 0, f"{place}: {line}"
        return ""
    if line.startswith("accelerate launch train.py"):  # here: an import of transformers less
        assert train(words[3:]) == 0, f"{place}: {line}"
        return ""
    shell = line.replace("accelerate launch", "python -m accelerate.commands.launch")
    shell = re.sub(r"\bpython\b", shlex.quote(sys.executable), shell)
    shell = re.sub(
        r"(^|\s)mma-mrnnet ", rf"\1{shlex.quote(sys.executable)} -m mma_mrnnet.cli ", shell
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shell],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{place}: {line}\n{done.stderr[-2000:]}"
    return done.stdout


def assert_prints(printed, block):
    """The same words, and numbers that are the same but for a margin."""
    number = re.compile(r"-?\d+\.\d+")
    ours, theirs = printed.strip(), block.output.strip()
    words = [" ".join(number.sub("#", text).split()) for text in (ours, theirs)]
    assert words[0] == words[1], block.place
    margin = AFTER_TRAINING if block.place.startswith("fine_tuning") else TOLERANCE
    pairs = list(zip(number.findall(ours), number.findall(theirs), strict=True))
    assert all(math.isclose(float(a), float(b), abs_tol=margin) for a, b in pairs), (
        block.place,
        pairs,
    )


# The picture of the walk --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def walk():
    spec = importlib.util.spec_from_file_location("draw_walk", ROOT / "docs" / "draw_walk.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["draw_walk"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_picture_of_the_walk_is_what_its_script_draws(walk):
    assert (ROOT / "docs" / "walk.svg").read_text("utf-8") == walk.draw_picture()


def test_every_hop_of_the_picture_is_a_function_or_class_where_it_says(walk):
    assert len(walk.HOPS) == 8
    for hop in walk.HOPS:
        source = (ROOT / "mma_mrnnet" / hop.place).read_text("utf-8")
        if " " not in hop.name:
            for name in hop.name.split("."):
                assert re.search(rf"^\s*(def|class) {name}\b", source, re.MULTILINE), hop
