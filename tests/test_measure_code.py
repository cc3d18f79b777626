"""The measures of the code, on a package of a few lines."""

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"

ONE = '''"""One."""

from mma_mrnnet.two import load_rows


class Box:
    """A box."""

    @property
    def width(self) -> int:
        """Its width."""
        return 1

    def rows_of(self, given: dict) -> dict[str, dict[str, int]]:
        """Rows."""
        return load_rows(given)
'''
TWO = '''"""Two."""


def load_rows(given: dict[str, int]) -> list[dict]:
    from .one import Box  # a line of more than eighty characters, which is the limit here, yes

    return [Box()]


def _is_new(row: list[dict[str, int]]) -> bool:
    return True
'''


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("measure_code", FOLDER / "measure_code.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.modules.pop("machine", None)


def test_the_measures_by_hand(bench, tmp_path):
    package = tmp_path / "mma_mrnnet"
    (package / "pretrained").mkdir(parents=True)
    (package / "pretrained" / "three.py").write_text("x = 1\n")
    (package / "one.py").write_text(ONE)
    (package / "two.py").write_text(TWO)
    found = bench.measure_code(tmp_path)
    lines = len(ONE.splitlines()) + len(TWO.splitlines())
    assert (found["files"], found["lines"]) == (2, lines)
    assert found["share of lines of 80 characters or more"] == pytest.approx(1 / lines)
    assert (found["functions"], found["longest function"]) == (4, {"load_rows": 4})
    assert found["mean lines a function"] == (3 + 3 + 4 + 2) / 4
    assert found["share of verb-first names"] == pytest.approx(2 / 3)  # not rows_of
    assert found["files a folder"] == {".": 2}
    assert found["import cycles"] == 1
    assert found["signatures with a bare dict"] == 2
