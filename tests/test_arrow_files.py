"""Data sets kept as Arrow files: the same rows again, damage noticed, several writers at once."""

import logging
import shutil
import subprocess
import sys

import datasets
import pytest

from mma_mrnnet.features import arrow_files
from mma_mrnnet.features.arrow_files import store_dataset, stored_dataset

FEATURES = datasets.Features({"name": datasets.Value("string"), "value": datasets.Value("float32")})
OTHER = datasets.Features({"name": datasets.Value("string"), "value": datasets.Value("float64")})


def part(first, count=100):
    columns = {
        "name": [str(n) for n in range(first, first + count)],
        "value": [n / 8 for n in range(count)],
    }
    return datasets.Dataset.from_dict(columns, features=FEATURES).with_format("arrow")[:]


def store(folder, name="train-abc", first=0):
    return store_dataset((part(start) for start in (first, first + 100)), folder, name, FEATURES)


def test_a_data_set_comes_back_as_it_was_from_the_disk(tmp_path):
    stored = store(tmp_path / "new" / "folder")
    found = stored_dataset(tmp_path / "new" / "folder", "train-abc", FEATURES)
    assert found.features == FEATURES
    assert found["name"][:] == [str(n) for n in range(200)] == stored["name"][:]
    assert found["value"][99:102] == [99 / 8, 0.0, 0.125]
    assert len(found.cache_files) == 1  # memory-mapped, not in memory


def test_a_data_set_of_no_rows_is_one(tmp_path):
    assert len(store_dataset((), tmp_path, "train-abc", FEATURES)) == 0
    assert len(stored_dataset(tmp_path, "train-abc", FEATURES)) == 0


def test_what_was_never_stored_is_not_there(tmp_path):
    store(tmp_path, "train-abc")
    assert stored_dataset(tmp_path, "train-abd", FEATURES) is None
    assert stored_dataset(tmp_path, "train-ab", FEATURES) is None
    assert stored_dataset(tmp_path / "nowhere", "train-abc", FEATURES) is None


def cut(path, other):
    path.write_bytes(path.read_bytes()[:-100])


def empty(path, other):
    path.write_bytes(b"")


def flip_a_bit_of_the_values(path, other):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def put_noise(path, other):
    path.write_bytes(bytes(range(256)) * 8)


def put_another_data_set(path, other):
    # With its own, right checksum: only what the file says of itself gives it away.
    shutil.copy(other, path.with_name("train-abc-" + other.stem.rpartition("-")[2] + ".arrow"))
    path.unlink()


@pytest.mark.parametrize(
    "spoil", [cut, empty, flip_a_bit_of_the_values, put_noise, put_another_data_set]
)
def test_a_damaged_or_foreign_file_is_not_taken_and_can_be_stored_again(tmp_path, caplog, spoil):
    store(tmp_path, "train-xyz", first=500)
    (other,) = tmp_path.iterdir()
    store(tmp_path, "train-abc")
    (path,) = tmp_path.glob("train-abc-*")
    spoil(path, other)
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        assert stored_dataset(tmp_path, "train-abc", FEATURES) is None
    assert "built again" in caplog.text
    store(tmp_path, "train-abc")
    assert stored_dataset(tmp_path, "train-abc", FEATURES)["name"][0] == "0"


def test_a_file_with_other_columns_is_not_taken(tmp_path, caplog):
    store(tmp_path)
    with caplog.at_level(logging.WARNING, logger="mma_mrnnet"):
        assert stored_dataset(tmp_path, "train-abc", OTHER) is None
    assert "holds another data set" in caplog.text


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    def parts():
        yield part(0)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        store_dataset(parts(), tmp_path, "train-abc", FEATURES)
    assert list(tmp_path.iterdir()) == []


WRITER = """
import importlib.util, pathlib, sys, time
import datasets
# By its path: the package would bring in all of transformers.
spec = importlib.util.spec_from_file_location("arrow_files", sys.argv[1])
arrow_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(arrow_files)
folder, me = pathlib.Path(sys.argv[2]), sys.argv[3]
features = datasets.Features({"value": datasets.Value("int64")})
rows = datasets.Dataset.from_dict({"value": list(range(50_000))}, features=features).with_format("arrow")[:]
(folder / f"ready-{me}").touch()
while len(list(folder.glob("ready-*"))) < 2:
    time.sleep(0.01)
for _ in range(20):
    arrow_files.store_dataset((rows, rows), folder / "cache", "train-abc", features)
    found = arrow_files.stored_dataset(folder / "cache", "train-abc", features)
    assert found is not None and len(found) == 100_000 and found[99_999]["value"] == 49_999
"""


def test_two_processes_that_store_at_once_both_read_whole_rows(tmp_path):
    words = [sys.executable, "-c", WRITER, arrow_files.__file__, str(tmp_path)]
    workers = [subprocess.Popen([*words, me], stderr=subprocess.PIPE, text=True) for me in "ab"]
    for worker in workers:
        _, complaint = worker.communicate(timeout=120)
        assert worker.returncode == 0, complaint
        assert "built again" not in complaint
    assert (
        len(list((tmp_path / "cache").iterdir())) == 1
    )  # the same content, the same file, nothing half-written
