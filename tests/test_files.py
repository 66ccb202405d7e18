"""Files and folders appear whole or not at all."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from ferkit import files
from ferkit.errors import UserError
from ferkit.files import lock, recover_folder, whole_file, whole_folder

INTERRUPTIONS = pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt])


@pytest.fixture(params=[0o022, 0o077], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def fill(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "a.txt").write_text(text)
    return folder


def content(folder: Path) -> dict[str, str]:
    """The text of each file below `folder`, hidden ones too, but for the lock that stays beside a folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_file_and_the_folders_above_it_appear(tmp_path):
    path = tmp_path / "new" / "folder" / "model.png"
    with whole_file(path) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".png", "many writers choose their format by it"
        assert not path.exists()
    assert content(tmp_path) == {"new/folder/model.png": "whole"}


@INTERRUPTIONS
def test_interrupted_file_leaves_the_old_one_and_nothing_beside_it(tmp_path, interruption):
    path = tmp_path / "model.bin"
    path.write_text("old")
    with pytest.raises(interruption), whole_file(path) as temporary:
        temporary.write_text("half")
        raise interruption
    assert content(tmp_path) == {"model.bin": "old"}


def test_file_and_folder_have_the_mode_that_the_umask_gives(tmp_path, umask):
    with whole_file(tmp_path / "file") as temporary:
        temporary.write_text("text")
    with whole_folder(tmp_path / "folder"):
        pass
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


def test_folder_takes_the_place_of_the_old_one_and_of_what_a_kill_left(tmp_path):
    folder = tmp_path / "above" / "data"
    for text in ("first", "second"):
        with whole_folder(folder) as temporary:
            assert content(temporary) == {}
            fill(temporary, text)
        assert content(tmp_path) == {"above/data/a.txt": text}
    fill(folder.with_name(".data.partial"), "third")  # what a kill would leave
    (folder / "b.txt").write_text("not in the next one")
    with whole_folder(folder) as temporary:
        assert content(temporary) == {}
        fill(temporary, "fourth")
    assert content(tmp_path) == {"above/data/a.txt": "fourth"}


@INTERRUPTIONS
def test_interrupted_folder_leaves_the_old_one_and_nothing_beside_it(tmp_path, interruption):
    folder = fill(tmp_path / "data", "old")
    with pytest.raises(interruption), whole_folder(folder) as temporary:
        fill(temporary, "half")
        raise interruption
    assert content(tmp_path) == {"data/a.txt": "old"}
    assert sorted(os.listdir(tmp_path)) == [".data.lock", "data"]


def test_interruption_between_the_two_renames_loses_nothing(tmp_path, monkeypatch):
    folder = fill(tmp_path / "data", "old")
    rename = os.replace

    def interrupted(source, target):
        if Path(source) != folder:
            raise KeyboardInterrupt
        rename(source, target)

    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch, whole_folder(folder) as temporary:
        fill(temporary, "new")
        patch.setattr(files.os, "replace", interrupted)
    recover_folder(folder)
    assert content(tmp_path) == {"data/a.txt": "old"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {}),
        ({"data": "new"}, {"data/a.txt": "new"}),
        ({".data.old": "old"}, {"data/a.txt": "old"}),
        ({"data": "new", ".data.old": "old"}, {"data/a.txt": "new"}),
    ],
    ids=["nothing there", "not killed", "killed between the renames", "killed after them"],
)
def test_recovery_puts_back_only_what_is_missing(tmp_path, before, after):
    for name, text in before.items():
        fill(tmp_path / name, text)
    recover_folder(tmp_path / "data")
    assert content(tmp_path) == after


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_lock_file_follows_no_link_and_changes_no_content(tmp_path):
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / ".data.lock").symlink_to("precious")
    with (
        pytest.raises(UserError, match=r"\.data\.lock is a link, which no lock file is: delete it"),
        lock(tmp_path / "data"),
    ):
        pass
    assert (tmp_path / "precious").read_text() == "years of work"
    (tmp_path / ".data.lock").unlink()
    (tmp_path / ".data.lock").write_text("a note")
    with lock(tmp_path / "data") as locked:
        assert locked
    assert (tmp_path / ".data.lock").read_text() == "a note"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_two_processes_do_not_fill_one_folder(tmp_path):
    code = "import sys, time; from ferkit.files import whole_folder\n"
    code += "with whole_folder(sys.argv[1]): print('in'); time.sleep(600)"
    command = [sys.executable, "-u", "-c", code, str(tmp_path / "data")]
    first = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert first.stdout.readline() == "in\n"
    with pytest.raises(UserError, match="another process is writing"), whole_folder(tmp_path / "data"):
        pass
    first.kill()
    first.communicate()
    with whole_folder(tmp_path / "data") as folder:
        (folder / "a.txt").write_text("second")
    assert content(tmp_path) == {"data/a.txt": "second"}


def test_reader_leaves_a_folder_alone_that_is_being_replaced(tmp_path, monkeypatch):
    fill(tmp_path / "data", "old")
    replace = os.replace

    def read_between_the_renames(source, target):
        replace(source, target)
        recover_folder(tmp_path / "data")

    monkeypatch.setattr(os, "replace", read_between_the_renames)
    with whole_folder(tmp_path / "data") as folder:
        fill(folder, "new")
    assert content(tmp_path) == {"data/a.txt": "new"}


def test_link_stays_a_link(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    with whole_file(tmp_path / "link") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there" / "file").read_text() == "new"
