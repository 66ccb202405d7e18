"""Files and folders appear whole or not at all."""

import errno
import os
import re
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from conftest import ROOT, full_disk

from ferkit import files
from ferkit.errors import UserError
from ferkit.files import check_writable, lock, read_text, recover_folder, whole_file, whole_folder

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


# --- reading ---------------------------------------------------------------------------------------------------------


def test_only_regular_files_are_read_and_nothing_is_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "socket"))
    (tmp_path / "circle").symlink_to("circle")
    for name, reason in (
        ("pipe", "it is a pipe, not a regular file"),
        ("", "it is a folder, not a regular file"),
        ("socket", "No such device or address"),
        ("circle", "Too many levels of symbolic links"),
        ("x" * 300, "File name too long"),
        ("a\0b", "embedded null byte"),
    ):
        with pytest.raises(UserError, match=f"^cannot read {re.escape(f'{tmp_path}/{name}'.rstrip('/'))}: {reason}$"):
            read_text(tmp_path / name)
    with pytest.raises(UserError, match="^cannot read /dev/null: it is a device, not a regular file$"):
        read_text("/dev/null")
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "missing")


def test_missing_permission_is_said_of_the_file_that_was_named(tmp_path, permissions_count):
    path, folder = tmp_path / "secret.json", tmp_path / "folder"
    path.write_text("{}")
    path.chmod(0)
    folder.mkdir(mode=0o500)
    with pytest.raises(UserError, match=f"^no permission to read {path}$"):
        read_text(path)
    for write in (whole_file, whole_folder):
        with pytest.raises(UserError, match=f"^no permission to write {folder}/new(/file)?: "), write(folder / "new"):
            pass
        with pytest.raises(UserError, match=f"^no permission to write {folder}/new/file: "), write(folder / "new/file"):
            pass
    assert list(folder.iterdir()) == []


# --- what cannot be written ------------------------------------------------------------------------------------------


def test_folder_that_cannot_be_written_is_known_before_the_work(tmp_path, permissions_count):
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir(mode=0)
    for name, reason in (
        ("file/inside", f"cannot write {tmp_path}/file/inside: {tmp_path}/file is a file, not a folder"),
        ("locked/inside", f"no permission to write {tmp_path}/locked/inside"),
        ("new/" + "x" * 300, "File name too long"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(UserError, match=reason):
            check_writable(tmp_path / name)
    check_writable(tmp_path / "new" / "folder")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "locked"}


@pytest.mark.parametrize("write", [whole_file, whole_folder])
def test_links_in_a_circle_are_refused(tmp_path, write):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for path in (tmp_path / "a", tmp_path / "a" / "inside"):
        with pytest.raises(UserError, match=f"^{path} is a link that leads to itself: "), write(path):
            pass
    with pytest.raises(UserError, match="is a link that leads to itself"):
        recover_folder(tmp_path / "a")


def test_file_replaces_regular_files_only(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "pipe"), (Path("/dev/null"), "device"), (tmp_path, "folder")):
        message = f"^cannot write {path}: it is a {kind}: name another place$"
        with pytest.raises(UserError, match=message), whole_file(path):
            pass
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_part_of_the_path_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("old")
    for write in (whole_file, whole_folder):
        message = f"^cannot write {tmp_path}/file/new: a part of its path is a file, not a folder"
        with pytest.raises(UserError, match=message), write(tmp_path / "file" / "new"):
            pass
    assert content(tmp_path) == {"file": "old"}


@pytest.mark.parametrize(
    "fill",
    [
        lambda path: path.write_bytes(bytes(10**6)),
        lambda path: np.zeros(10**6).tofile(path),
        lambda path: np.savez(path.open("wb"), numbers=np.arange(10**6)),
        lambda path: pd.DataFrame({"a": range(10**5)}).to_csv(path),
        lambda path: PIL.Image.effect_noise((1000, 1000), 9).save(path, "png"),
    ],
    ids=["bytes", "numpy", "npz", "csv", "png"],
)
def test_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path, fill):
    (tmp_path / "file").write_text("old")
    message = f"^cannot write {tmp_path}/file: no space is left on its disk: free some, or name another place$"
    with full_disk(100_000), pytest.raises(UserError, match=message), whole_file(tmp_path / "file") as temporary:
        fill(temporary)
    assert content(tmp_path) == {"file": "old"}


def test_full_disk_leaves_the_old_folder(tmp_path):
    fill(tmp_path / "data", "old")
    message = f"^cannot write {tmp_path}/data: no space is left on its disk"
    with full_disk(100_000), pytest.raises(UserError, match=message), whole_folder(tmp_path / "data") as folder:
        np.save(folder / "images.npy", np.zeros(10**6))
    assert content(tmp_path) == {"data/a.txt": "old"} and not (tmp_path / ".data.partial").exists()


def test_temporary_folder_that_cannot_be_made_is_named(monkeypatch):
    def full(prefix: str) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{tempfile.gettempdir()}/{prefix}abc")

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(UserError, match=f"^cannot write {tempfile.gettempdir()}: no space is left on its disk"):
        files.temporary_folder("ferkit-trial-").__enter__()


def test_error_of_something_else_passes_through(tmp_path):
    for error in (FileNotFoundError(errno.ENOENT, "No such file", "other"), BrokenPipeError(errno.EPIPE, "Broken")):
        for write in (whole_file, whole_folder):
            with pytest.raises(type(error)), write(tmp_path / "new"):
                raise error


# --- what a kill leaves ----------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from ferkit.files import temporary_folder, whole_file
with whole_file(sys.argv[1] + "/a.mp4"), temporary_folder("ferkit-test-") as (folder, held):
    print("in"); time.sleep(600)
"""
WRITE = """
import sys
from ferkit.files import temporary_folder, whole_file
with whole_file(sys.argv[1] + "/other.csv"), temporary_folder("ferkit-test-"):
    pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_next_process_deletes_what_a_killed_one_left_and_nothing_else(tmp_path):
    (tmp_path / "temporary").mkdir()
    strangers = [".a.mp4", ".a.12345678.mp4", ".a.notahexn.partial.mp4", "a.12345678.partial.mp4"]
    for name in strangers:
        (tmp_path / name).write_text("a user's")
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}

    def start(code: str) -> subprocess.Popen:
        command = [sys.executable, "-u", "-c", code, str(tmp_path)]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    def left() -> int:
        files = {path.name for path in tmp_path.iterdir()} - {*strangers, "temporary", "other.csv"}
        return len(files) + len(list((tmp_path / "temporary").iterdir()))

    killed, living = start(HOLD), start(HOLD)
    assert killed.stdout.readline() == living.stdout.readline() == "in\n" and left() == 4
    killed.kill()
    killed.communicate()
    assert start(WRITE).wait() == 0
    assert left() == 2 and living.poll() is None, "only what is not in use goes"
    living.kill()
    living.communicate()
    assert start(WRITE).wait() == 0 and left() == 0
    assert all((tmp_path / name).read_text() == "a user's" for name in strangers)
