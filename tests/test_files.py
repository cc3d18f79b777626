"""What `files.py` promises: whole files or none, links and pipes respected, only our own leftovers swept."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mma_mrnnet import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def leftover_of(target, process, suffix=""):
    digest = files._digest_of_name(target)
    return target.with_name(f"{files.MARK}{digest}-{process}-0123abcd{suffix}")


@pytest.fixture
def dead_process():
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_file_is_replaced_only_when_the_block_succeeds(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), files.replaced_file(target) as staging:
        staging.write_text("half")
        raise ZeroDivisionError
    assert (target.read_text(), names(tmp_path)) == ("old", ["table.csv"])
    with files.replaced_file(target) as staging:
        assert staging.suffix == ".csv"
        staging.write_text("new")
        assert target.read_text() == "old"
    assert (target.read_text(), names(tmp_path)) == ("new", ["table.csv"])


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    target.chmod(0o640)
    files.write_text(target, "new")
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    target = tmp_path / "there" / "real.txt"
    target.write_text("old")
    link = tmp_path / "link.txt"
    link.symlink_to(target)
    files.write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_named_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    files.write_text(pipe, "through")
    reader.join(10)
    assert got == ["through"]
    assert pipe.is_fifo()


def test_a_name_of_255_bytes_can_be_written(tmp_path):
    target = tmp_path / ("x" * 251 + ".txt")
    files.write_text(target, "kept")
    assert target.read_text() == "kept"


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(ZeroDivisionError), files.replaced_folder(target) as staging:
        (staging / "half").write_text("half")
        raise ZeroDivisionError
    assert names(target) == ["old"]
    with files.replaced_folder(target) as staging:
        (staging / "below").mkdir()
        (staging / "below" / "new").write_text("new")
    assert (names(target), names(tmp_path)) == (["below"], ["model"])


def test_leftovers_of_a_killed_run_are_swept_by_the_next_write_of_the_same_target(
    tmp_path, dead_process
):
    target = tmp_path / "table.csv"
    leftover_of(target, dead_process, ".csv").write_text("half")
    files.write_text(target, "new")
    assert names(tmp_path) == ["table.csv"]


def test_only_our_own_leftovers_of_dead_processes_are_swept(tmp_path, dead_process):
    foreign = (".env.old", ".notes.tmp", ".table.csv.tmp-12", ".mma-tmp-notes")
    for name in foreign:
        (tmp_path / name).write_text("a user's")
    (tmp_path / ".cache.old").mkdir()
    running = leftover_of(tmp_path / "a", os.getpid())
    running.write_text("being written")
    leftover_of(tmp_path / "b", dead_process).mkdir()
    files.sweep_leftovers(tmp_path)
    assert names(tmp_path) == sorted([*foreign, ".cache.old", running.name])
    os.utime(running, (0, 0))  # of 1970: whoever has this process number now did not write it
    files.sweep_leftovers(tmp_path)
    assert running.name not in names(tmp_path)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_process_that_ended_and_was_not_waited_for_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    left = leftover_of(tmp_path / "a", process.pid)
    left.write_text("half")
    status = Path(f"/proc/{process.pid}/stat")
    while ") Z " not in status.read_text():
        time.sleep(0.01)
    files.sweep_leftovers(tmp_path)
    process.wait()
    assert names(tmp_path) == []


def test_json_is_strict(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"x": float("nan")})
    assert names(tmp_path) == []
    files.write_json(tmp_path / "a.json", {"x": 0.5})
    assert (tmp_path / "a.json").read_text() == '{\n "x": 0.5\n}\n'


def test_a_path_that_cannot_be_written_is_said_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist"):
        files.check_can_write_file(tmp_path / "nowhere" / "a.csv")
    with pytest.raises(ValueError, match="is a folder, not a file"):
        files.check_can_write_file(tmp_path)
    files.check_can_write_file(tmp_path / "a.csv")
    assert names(tmp_path) == []


def test_a_new_folder_must_be_absent_or_empty(tmp_path, monkeypatch):
    files.check_new_folder(tmp_path / "new")
    files.check_new_folder(tmp_path)
    (tmp_path / "a").write_text("")
    for path in (tmp_path, tmp_path / "a"):
        with pytest.raises(ValueError, match="exists and is not an empty folder"):
            files.check_new_folder(path)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="is the current folder"):
        files.check_new_folder(".")


def test_digests_depend_on_content_alone(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # The SHA-256 of "abc" is FIPS 180-2's own example.
    assert files.file_digest(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
    assert files.content_digest({"a": 1, "b": 2}) == files.content_digest({"b": 2, "a": 1})
    assert files.content_digest("a", "b") != files.content_digest("ab")
