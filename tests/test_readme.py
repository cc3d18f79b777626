"""The README and the docs: links lead somewhere, code runs, numbers are those of the result files."""

import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mma_mrnnet.data.video import write_video
from mma_mrnnet.demo import DURATION_S, FPS, astronaut, camera_move
from mma_mrnnet.training.arguments import parse_arguments

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def fill_readme():
    sys.path.insert(0, str(ROOT / "benchmarks"))  # the script imports its sibling `evaluation_tables`
    spec = importlib.util.spec_from_file_location("fill_readme", ROOT / "benchmarks" / "fill_readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(ROOT / "benchmarks"))
    return module


@pytest.fixture
def beside_the_demo_clip(tmp_path, monkeypatch):
    (tmp_path / "demo_output").mkdir()
    write_video(tmp_path / "demo_output" / "astronaut.mp4", camera_move(astronaut(), FPS * DURATION_S), FPS)
    (tmp_path / "mma_mrnnet").symlink_to(ROOT / "mma_mrnnet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_to_files_that_exist(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert not missing


def test_the_result_tables_are_what_the_result_files_say(fill_readme):
    assert fill_readme.filled(README, {"results": fill_readme.results()}) == README


def test_the_guides_measured_tables_are_what_the_result_files_say(fill_readme):
    guide = (ROOT / "docs" / "training.md").read_text("utf-8")
    assert fill_readme.filled(guide, fill_readme.guide_blocks()) == guide


def test_the_pages_of_results_and_fairness_are_what_the_result_files_say(fill_readme):
    for name, blocks in (("results", fill_readme.result_blocks()), ("fairness", fill_readme.fairness_blocks())):
        page = (ROOT / "docs" / f"{name}.md").read_text("utf-8")
        assert fill_readme.filled(page, blocks) == page


def test_the_page_of_onnx_is_what_its_result_file_says(fill_readme):
    page = (ROOT / "docs" / "onnx.md").read_text("utf-8")
    assert fill_readme.filled(page, fill_readme.onnx_blocks()) == page


def test_the_page_of_the_ablations_is_what_the_result_files_say(fill_readme):
    page = (ROOT / "benchmarks" / "ablations.md").read_text("utf-8")
    assert fill_readme.filled(page, fill_readme.ablation_blocks()) == page


def test_the_shipped_card_is_what_the_result_files_say():
    from mma_mrnnet.hub import load_pretrained, model_card, pretrained_folder

    assert model_card(load_pretrained()[0], pretrained_folder()) == (pretrained_folder() / "README.md").read_text(
        "utf-8"
    )


def test_the_shipped_checkpoint_is_under_12_megabytes():
    files = [path for path in (ROOT / "mma_mrnnet" / "pretrained").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6


def test_the_example_prints_what_the_readme_says(beside_the_demo_clip):
    block = re.search(r"<!-- begin: example -->\n```python\n(.*?)```\n\n```text\n(.*?)```", README, re.DOTALL)
    code, promised = block.groups()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {})
    number = re.compile(r"-?\d+\.\d+")
    assert re.sub(r" +", " ", number.sub("#", printed.getvalue()).strip()) == re.sub(
        r" +", " ", number.sub("#", promised).strip()
    )
    # Processors differ in the last digits of a float, hence the margin.
    pairs = zip(number.findall(printed.getvalue()), number.findall(promised), strict=True)
    assert all(abs(float(ours) - float(theirs)) <= 0.02 for ours, theirs in pairs)


def test_the_other_python_blocks_run(beside_the_demo_clip):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    exec(blocks[1], {})


def commands():
    lines = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.strip()]


def test_every_command_of_the_readme_is_one_that_exists():
    known = (
        "make demo",
        "make test",
        ". .venv/bin/activate",
        "mma-mrnnet predict",
        "mma-mrnnet export",
        "accelerate launch train.py",
    )
    assert [line for line in commands() if not line.startswith(known)] == []
    makefile = (ROOT / "Makefile").read_text("utf-8")
    assert "\ndemo:" in makefile
    assert "\ntest:" in makefile


def test_the_predict_command_runs_as_written(beside_the_demo_clip):
    (line,) = [line for line in commands() if "predict" in line]
    words = shlex.split(line.replace("mma-mrnnet", f"{sys.executable} -m mma_mrnnet.cli"))
    subprocess.run(words, check=True, cwd=beside_the_demo_clip, capture_output=True, timeout=300)
    assert Path("demo_output/results.csv").is_file()
    assert Path("demo_output/all_frames.csv").is_file()


@pytest.mark.slow
def test_the_training_commands_and_the_export_run_as_written(tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for line in commands():
        words = shlex.split(line)
        if line.startswith("accelerate launch"):
            parse_arguments(words[3:])
            words = [sys.executable, "-m", "accelerate.commands.launch", str(ROOT / "train.py"), *words[3:]]
        elif line.startswith("mma-mrnnet export"):
            words = [sys.executable, "-m", "mma_mrnnet.cli", *words[1:]]
        else:
            continue
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "runs" / "my-model" / "README.md").is_file()


def test_no_page_names_a_path_of_this_machine():
    home = str(ROOT.parent) + "/"
    for page in [*PAGES, *sorted((ROOT / "hub_cards").glob("*.md")), ROOT / "mma_mrnnet" / "pretrained" / "README.md"]:
        assert home not in page.read_text("utf-8")
