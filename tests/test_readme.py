"""README and docs: links lead somewhere, numbers are those of the result files."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

import mma_mrnnet

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
]


@pytest.fixture(scope="module")
def fill_readme():
    sys.path.insert(
        0, str(ROOT / "benchmarks")
    )  # the script imports its sibling `evaluation_tables`
    spec = importlib.util.spec_from_file_location(
        "fill_readme", ROOT / "benchmarks" / "fill_readme.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(ROOT / "benchmarks"))
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_to_files_that_exist(page):
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))
    missing = [
        target for target in targets if "://" not in target and not (page.parent / target).exists()
    ]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_a_heading_lead_to_one(page):
    for target, heading in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text("utf-8")):
        assert heading in headings(page.parent / target if target else page), f"{target}#{heading}"


def headings(page):
    """Return the anchors that GitHub makes of a page's headings."""
    found = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_page_has_the_numbers_of_the_result_files(fill_readme):
    for name, blocks in fill_readme.PAGES.items():
        text = (ROOT / name).read_text("utf-8")
        assert fill_readme.fill(text, blocks()) == text, name


def test_a_block_that_a_page_does_not_have_is_refused(fill_readme):
    with pytest.raises(AssertionError, match="0 blocks are named speed"):
        fill_readme.fill("no block", {"speed": "1 s"})


def test_the_readme_fits_on_two_screens():
    lines = README.splitlines()
    assert len(lines) <= 115
    prose = [line for line in lines if not line.startswith(("|", "!"))]
    assert max(map(len, prose)) <= 105


def test_every_page_of_the_docs_is_linked_from_the_readme():
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert pages <= set(re.findall(r"\]\(([^)#]+)", README))


def test_the_shipped_card_is_what_the_result_files_say():
    from mma_mrnnet.hub.cards import model_card
    from mma_mrnnet.hub.checkpoints import load_pretrained, pretrained_folder

    assert model_card(load_pretrained()[0], pretrained_folder()) == (
        pretrained_folder() / "README.md"
    ).read_text("utf-8")


def test_the_pages_name_the_licence_of_the_card():
    card = (ROOT / "mma_mrnnet" / "pretrained" / "README.md").read_text("utf-8")
    licence = re.search(r"^license: (.+)$", card, re.MULTILINE)[1]
    assert licence == "cc-by-4.0"
    for page in ("README.md", "docs/questions.md"):
        assert "Shipped weights: CC BY 4.0" in (ROOT / page).read_text("utf-8")


def test_the_citation_file_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == mma_mrnnet.__version__
    assert [author["name"] for author in citation["authors"]] == ["The mma_mrnnet authors"]
    (paper,) = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/2303.00180"


def test_every_part_of_the_package_is_in_the_guide_for_contributors():
    guide = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    package = ROOT / "mma_mrnnet"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")}
    assert all(f"`{room}/`" in guide for room in rooms)
    files = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    assert all(f"`{name}`" in guide for name in files)


def test_the_shipped_checkpoint_is_under_12_megabytes():
    files = [path for path in (ROOT / "mma_mrnnet" / "pretrained").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12e6


def test_no_page_names_a_path_of_this_machine():
    home = str(ROOT.parent) + "/"
    for page in [
        *PAGES,
        *sorted((ROOT / "hub_cards").glob("*.md")),
        ROOT / "mma_mrnnet" / "pretrained" / "README.md",
    ]:
        assert home not in page.read_text("utf-8")
