"""The marker: what the folder last was, and a lock that tells whether somebody runs in it."""

from __future__ import annotations

import dataclasses
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from authsync.core.names import MARKER
from authsync.core.reconcile import Trace
from authsync.errors import FolderError, OwnedError
from authsync.marker import Mark, Marker

MARK = Mark(
    session="default",
    owner="owner-1",
    token=7,
    clean=True,
    revision=812,
    digest=bytes(range(32)),
    host="h",
    boot_id="b",
)
RESTORING = Mark(session="default", owner=None, restoring=True)


def read(root: Path) -> Mark | None:
    """What another process reads, but for the place of the marker's own file."""
    mark = Marker(root).read()
    return mark and dataclasses.replace(mark, place="")


def test_round_trip(tmp_path: Path) -> None:
    """What is written is read, by another process too; the file is 0600."""
    Marker(tmp_path).write(MARK)
    assert read(tmp_path) == MARK
    assert stat.S_IMODE((tmp_path / MARKER).stat().st_mode) == 0o600


def test_none(tmp_path: Path) -> None:
    """Without a marker, or a folder, there is none."""
    assert Marker(tmp_path).read() is None
    assert Marker(tmp_path / "gone").read() is None


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"session": "default"}', b"\xff", b"\0" * 1024],
    ids=lambda content: repr(content[:12]),
)
def test_unreadable(content: bytes, tmp_path: Path) -> None:
    """A marker that is not ours, or was torn by a crash of the machine, is as good as none."""
    (tmp_path / MARKER).write_bytes(content)
    assert Marker(tmp_path).read() is None


def test_folder_in_its_place(tmp_path: Path) -> None:
    """What cannot be read or written is an error of the folder, 73."""
    (tmp_path / MARKER).mkdir()
    marker = Marker(tmp_path)
    for attempt in (marker.read, lambda: marker.write(MARK), marker.lock):
        with pytest.raises(FolderError):
            attempt()


@pytest.mark.parametrize("locked", [False, True], ids=["not locked", "locked"])
@pytest.mark.parametrize(
    "session",
    ["default", "\U0001f600" * 100, "ü" * 100],
    ids=["short id", "longest id of emoji", "longest id of letters"],
)
def test_replaced(session: str, tmp_path: Path, *, locked: bool) -> None:
    """A shorter mark replaces a longer one wholly, in place, so that the lock stays; and the other way round."""
    marker = Marker(tmp_path)
    if locked:
        marker.lock()
    long = dataclasses.replace(MARK, session=session, host="h" * 200)
    short = dataclasses.replace(RESTORING, session=session)
    inode = None
    for mark in (long, short, long, short):
        marker.write(mark)
        assert read(tmp_path) == mark
        inode = inode or (tmp_path / MARKER).stat().st_ino
        assert (tmp_path / MARKER).stat().st_ino == inode
    marker.unlock()


def test_lock(tmp_path: Path) -> None:
    """While one process holds the lock another is refused, with 75; afterwards it may have it."""
    first, second = Marker(tmp_path), Marker(tmp_path)
    first.lock()
    with pytest.raises(OwnedError) as caught:
        second.lock()
    assert caught.value.exit_code == 75
    first.write(MARK)
    assert read(tmp_path) == MARK, "reading needs no lock"
    first.unlock()
    second.lock()
    assert read(tmp_path) == MARK, "locking changes nothing"
    second.unlock()
    second.unlock()


def test_lock_makes(tmp_path: Path) -> None:
    """Locking makes the marker, 0600, without a mark in it; a writer without the lock takes none."""
    marker = Marker(tmp_path)
    marker.lock()
    assert stat.S_IMODE((tmp_path / MARKER).stat().st_mode) == 0o600
    assert marker.read() is None
    marker.unlock()
    marker.write(MARK)
    other = Marker(tmp_path)
    other.lock()
    other.unlock()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts its descriptors in /proc")
def test_no_descriptor_left(tmp_path: Path) -> None:
    """Reading, writing, and a lock that is refused or given back leave no descriptor."""
    holder, marker = Marker(tmp_path), Marker(tmp_path)
    holder.lock()
    before = len(list(Path("/proc/self/fd").iterdir()))
    marker.write(MARK)
    marker.read()
    with pytest.raises(OwnedError):
        marker.lock()
    holder.lock()
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    holder.unlock()


def test_lock_twice(tmp_path: Path) -> None:
    """Who holds the lock may ask for it again."""
    marker = Marker(tmp_path)
    marker.lock()
    marker.lock()
    with pytest.raises(OwnedError):
        Marker(tmp_path).lock()
    marker.unlock()


def test_link_in_its_place(tmp_path: Path) -> None:
    """A link in the marker's place is not written through."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    root = tmp_path / "root"
    root.mkdir()
    (root / MARKER).symlink_to(outside)
    with pytest.raises(FolderError):
        Marker(root).write(MARK)
    with pytest.raises(FolderError):
        Marker(root).lock()
    assert outside.read_bytes() == b"precious"


def test_place(tmp_path: Path) -> None:
    """A mark that was written under the lock tells a copy of the folder from the folder itself."""
    root = tmp_path / "root"
    root.mkdir()
    marker = Marker(root)
    assert marker.place == ""
    marker.lock()
    marker.write(MARK)
    marker.unlock()
    shutil.copytree(root, tmp_path / "copy")
    for folder, same in ((root, True), (tmp_path / "copy", False)):
        later = Marker(folder)
        mark = later.read()
        later.lock()
        assert mark is not None
        assert (mark.place == later.place) is same
        later.unlock()


def remove_root(root: Path) -> None:
    """The bot removes its folder and makes it anew."""
    shutil.rmtree(root)
    root.mkdir()


def remove_marker(root: Path) -> None:
    """The bot removes all that is in its folder."""
    (root / MARKER).unlink()


def replace_marker(root: Path) -> None:
    """Somebody puts another file in its place."""
    remove_marker(root)
    (root / MARKER).write_bytes(b"{}")


@pytest.mark.parametrize("remove", [remove_root, remove_marker, replace_marker])
def test_removed(remove: Callable[[Path], None], tmp_path: Path) -> None:
    """A marker that the bot removed is made, locked and filled anew."""
    root = tmp_path / "root"
    root.mkdir()
    marker = Marker(root)
    marker.lock()
    marker.write(MARK)
    marker.restore_if_gone()
    assert read(root) == MARK
    remove(root)
    marker.restore_if_gone()
    assert read(root) == MARK
    with pytest.raises(OwnedError):
        Marker(root).lock()
    marker.unlock()


def test_written_after_removal(tmp_path: Path) -> None:
    """What is written after the bot removed the marker is in the new one, not lost in the old."""
    marker = Marker(tmp_path)
    marker.lock()
    remove_marker(tmp_path)
    marker.write(MARK)
    assert read(tmp_path) == MARK
    with pytest.raises(OwnedError):
        Marker(tmp_path).lock()
    marker.unlock()


def test_removed_before_the_first_mark(tmp_path: Path) -> None:
    """A marker that was locked and never written is locked again, and stays without a mark."""
    marker = Marker(tmp_path)
    marker.lock()
    remove_marker(tmp_path)
    marker.restore_if_gone()
    with pytest.raises(OwnedError):
        Marker(tmp_path).lock()
    assert marker.read() is None
    marker.unlock()


def test_root_gone(tmp_path: Path) -> None:
    """While the folder is gone nothing is made in its place: that is the bot's business."""
    root = tmp_path / "root"
    root.mkdir()
    marker = Marker(root)
    marker.lock()
    marker.write(MARK)
    shutil.rmtree(root)
    marker.restore_if_gone()
    assert not root.exists()
    root.mkdir()
    marker.restore_if_gone()
    assert read(root) == MARK
    marker.unlock()


def test_not_ours(tmp_path: Path) -> None:
    """Without the lock nothing is looked after."""
    Marker(tmp_path).restore_if_gone()
    assert not (tmp_path / MARKER).exists()


def test_trace() -> None:
    """What a mark tells a start of its own session."""
    assert MARK.trace("default") == Trace(owner="owner-1", clean=True, revision=812, digest=bytes(range(32)))


def test_trace_of_another() -> None:
    """Another session's mark tells nothing, but that a restore did not finish."""
    assert MARK.trace("other") is None
    trace = RESTORING.trace("other")
    assert trace is not None
    assert trace.restoring


def test_trace_restoring() -> None:
    """A folder that is half a restore is nothing else."""
    assert dataclasses.replace(MARK, restoring=True).trace("default") == Trace(restoring=True)
