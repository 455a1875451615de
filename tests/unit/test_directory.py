"""The folder, on a real disk: what a scan and a read see, and what a write may do."""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from authsync import directory as module
from authsync.core.flushplan import Absence
from authsync.core.manifest import content_entry
from authsync.core.names import STAGE, NameRules
from authsync.directory import Directory, StableRead
from authsync.errors import AuthsyncError, DamagedError, FolderError

LIMIT = 100_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A bot's folder, empty, beside nothing else."""
    folder = tmp_path / "home/auth_info"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def _open_umask() -> Iterator[None]:
    """What is written gets exactly the mode that is asked for."""
    before = os.umask(0)
    yield
    os.umask(before)


def opened(root: Path, *, ignore: tuple[str, ...] = ()) -> Directory:
    """The folder as a command sees it."""
    return Directory(root, names=NameRules(ignore=ignore), max_file_size_bytes=LIMIT)


def fill(root: Path, files: dict[str, bytes]) -> None:
    """Write files as a bot does."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def found(root: Path) -> dict[str, bytes]:
    """All regular files below a folder."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def mode(path: Path) -> int:
    """The permissions of a file or folder itself."""
    return stat.S_IMODE(path.lstat().st_mode)


def read(root: Path, *paths: str) -> tuple[dict[str, StableRead | Absence], dict[str, str]]:
    """What a read sees, and what it tells of the paths that are not synced."""
    told: dict[str, str] = {}
    return opened(root).read(paths, on_unsynced=told.__setitem__), told


FILES = {"creds.json": b"{}", "a/creds.json": b'{"a": 1}', "a/b/empty": b"", "ü.json": b"x" * 5000}


# What a scan sees


def test_scan(root: Path) -> None:
    """A scan finds every file by its content, at any depth."""
    fill(root, FILES)
    scan = opened(root).scan()
    assert dict(scan.manifest.items()) == {path: content_entry(content) for path, content in FILES.items()}
    assert (scan.twins, scan.unsynced, scan.unsupported) == ([], {}, {})


def test_scan_trusts_no_time(root: Path) -> None:
    """A file that changed without a trace in its size and times is found."""
    fill(root, {"creds.json": b"{1}"})
    before = (root / "creds.json").stat()
    (root / "creds.json").write_bytes(b"{2}")
    os.utime(root / "creds.json", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert opened(root).scan().manifest.get("creds.json") == content_entry(b"{2}")


def test_scan_ours(root: Path) -> None:
    """Our own files are not the bot's, at any depth; a writer's twins are only listed."""
    fill(root, {".authsync.json": b"x", f"{STAGE}/creds.json": b"x", "a/.authsync.json": b"x"})
    fill(root, {"creds.json": b"{}", "creds.json.tmp": b"{", "a/creds.json.bak": b"{}"})
    scan = opened(root).scan()
    assert set(scan.manifest) == {"creds.json"}
    assert set(scan.twins) == {"creds.json.tmp", "a/creds.json.bak"}


def test_scan_without_root(root: Path) -> None:
    """A folder that is not there holds nothing."""
    root.rmdir()
    assert len(opened(root).scan().manifest) == 0
    assert not opened(root).exists()


def test_scan_of_a_file(root: Path) -> None:
    """A root that is a file cannot be used, and the error, 73, names it."""
    root.rmdir()
    root.touch()
    with pytest.raises(FolderError) as caught:
        opened(root).scan()
    assert caught.value.exit_code == 73
    assert str(root) in caught.value.message


def make_link(path: Path) -> None:
    """A link to a file outside."""
    outside = path.parents[1] / "outside"
    outside.write_bytes(b"secret")
    path.symlink_to(outside)


def make_folder_link(path: Path) -> None:
    """A link to a folder outside that holds a creds.json."""
    outside = path.parents[1] / "volume"
    fill(outside, {"creds.json": b"{}"})
    path.symlink_to(outside)


def make_dangling_link(path: Path) -> None:
    """A link to nothing."""
    path.symlink_to("nowhere")


def make_fifo(path: Path) -> None:
    """A pipe, at which an open would wait for a writer."""
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    """A socket; bound by its name, since a socket's whole path may be too long."""
    before = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path.name)
    os.chdir(before)


def make_large(path: Path) -> None:
    """A file over the limit, by one byte."""
    path.write_bytes(bytes(LIMIT + 1))


ODD = [
    pytest.param(make_link, "symbolic link", id="link to a file"),
    pytest.param(make_folder_link, "symbolic link", id="link to a folder"),
    pytest.param(make_dangling_link, "symbolic link", id="link to nothing"),
    pytest.param(make_fifo, "no regular file", id="FIFO"),
    pytest.param(make_socket, "", id="socket"),
    pytest.param(make_large, "larger than --max-file-size (100000 bytes)", id="too large"),
]


@pytest.mark.parametrize(("make", "reason"), ODD)
def test_odd(make: Callable[[Path], None], reason: str, root: Path) -> None:
    """What is no regular file, or too large, is neither followed nor waited for: it is named, and the others go on."""
    fill(root, {"creds.json": b"{}"})
    make(root / "odd")
    scan = opened(root).scan()
    assert set(scan.manifest) == {"creds.json"}
    assert scan.unsynced.keys() == {"odd"}
    assert reason in scan.unsynced["odd"]
    seen, told = read(root, "odd", "creds.json")
    assert seen["odd"] is Absence.UNSYNCED
    assert isinstance(seen["creds.json"], StableRead)
    assert told.keys() == {"odd"}
    assert reason in told["odd"]


def test_largest(root: Path) -> None:
    """A file of just the limit is synced."""
    fill(root, {"large": bytes(LIMIT)})
    assert opened(root).scan().manifest.get("large") == content_entry(bytes(LIMIT))
    assert isinstance(read(root, "large")[0]["large"], StableRead)


def test_not_utf8(root: Path) -> None:
    """A name that is not UTF-8 is named so that it can be printed, and stops nothing else."""
    fill(root, {"creds.json": b"{}", os.fsdecode(b"bad\xff.json"): b"{}", os.fsdecode(b"\xfe/creds.json"): b"{}"})
    scan = opened(root).scan()
    assert set(scan.manifest) == {"creds.json"}
    assert scan.unsynced == {"bad\\xff.json": "its name is not UTF-8", "\\xfe": "its name is not UTF-8"}


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("auth.db", "SQLite database"),
        ("a/store.sqlite3", "SQLite database"),
        ("auth.db-wal", "SQLite database"),
        ("session/SingletonLock", "Chromium profile"),
        ("session/Local State", "Chromium profile"),
        ("creds.json", None),
    ],
)
def test_unsupported(path: str, kind: str | None, root: Path) -> None:
    """Files that only mean something together are named by what they are."""
    fill(root, {path: b"x"})
    assert opened(root).scan().unsupported.get(path) == kind


@pytest.mark.parametrize("ignore", [("cache",), ("cache/*",), ("*.log",), ("creds.json",)], ids=str)
def test_ignored(ignore: tuple[str, ...], root: Path) -> None:
    """A scan and an event agree on what ``--ignore`` names, below an ignored folder too."""
    fill(root, {"creds.json": b"{}", "cache/a.json": b"{}", "x/cache/b.json": b"{}", "x/y.log": b"", "x/y.json": b"{}"})
    folder = opened(root, ignore=ignore)
    assert set(folder.scan().manifest) == {path for path in found(root) if folder.belongs(path)}


def test_folder_named_like_a_twin(root: Path) -> None:
    """A folder that somebody called ``old.bak`` is no writer's twin: removing those does not touch it, nor fail."""
    fill(root, {"creds.json": b"{}", "old.bak/creds.json": b"{}", "x.tmp/y": b"z", "creds.json.tmp": b"{"})
    folder = opened(root)
    scan = folder.scan()
    folder.remove(scan.twins)
    assert found(root) == {"creds.json": b"{}", "old.bak/creds.json": b"{}", "x.tmp/y": b"z"}
    assert set(scan.manifest) == {path for path in found(root) if folder.belongs(path)}


# What a read sees


def test_read(root: Path) -> None:
    """A read gives the bytes, their entry, and for how long the file has been still."""
    fill(root, FILES)
    os.utime(root / "creds.json", (1_000_000_000, 1_000_000_000))
    seen, told = read(root, *FILES)
    assert told == {}
    for path, content in FILES.items():
        what = seen[path]
        assert isinstance(what, StableRead)
        assert (what.content, what.entry) == (content, content_entry(content))
    still = seen["creds.json"]
    assert isinstance(still, StableRead)
    assert still.still_s > 60


def test_read_from_the_future(root: Path) -> None:
    """A file whose time lies ahead, since a clock stepped back, has been still for no time."""
    fill(root, {"creds.json": b"{}"})
    os.utime(root / "creds.json", (4_000_000_000, 4_000_000_000))
    what = read(root, "creds.json")[0]["creds.json"]
    assert isinstance(what, StableRead)
    assert what.still_s == 0.0


@pytest.mark.parametrize("size", [65_535, 65_536, 65_537, 99_999])
def test_read_large(size: int, root: Path) -> None:
    """Files around the size of the buffer are read whole."""
    content = os.urandom(size)
    fill(root, {"large": content})
    what = read(root, "large")[0]["large"]
    assert isinstance(what, StableRead)
    assert what.content == content


def test_secret_content(root: Path) -> None:
    """The content is in no repr, which ends in logs."""
    fill(root, {"creds.json": b"secret"})
    assert "secret" not in repr(read(root, "creds.json"))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("gone.json", id="file"),
        pytest.param("none/gone.json", id="folder"),
        pytest.param("file/x.json", id="a file in the place of its folder"),
        pytest.param("folder", id="a folder in its place"),
        pytest.param("folder/none/x/y.json", id="deep"),
    ],
)
def test_missing(path: str, root: Path) -> None:
    """What is not there, or is a folder now, or lies below a file, is missing."""
    fill(root, {"file": b"x", "folder/x.json": b"{}"})
    before = sorted(root.rglob("*"))
    assert read(root, path) == ({path: Absence.MISSING}, {})
    assert sorted(root.rglob("*")) == before, "reading makes nothing"


def test_root_missing(root: Path) -> None:
    """Without the root all is missing."""
    root.rmdir()
    assert read(root, "creds.json", "a/b") == ({"creds.json": Absence.MISSING, "a/b": Absence.MISSING}, {})


def test_below_a_link(root: Path) -> None:
    """A file below a folder that is a link now is not deleted: it is not synced, and the reason is told."""
    fill(root, {"creds.json": b"{}"})
    make_folder_link(root / "user")
    seen, told = read(root, "user/creds.json", "user/a/b.json", "creds.json")
    assert seen["user/creds.json"] is seen["user/a/b.json"] is Absence.UNSYNCED
    assert "symbolic link" in told["user/creds.json"]
    assert isinstance(seen["creds.json"], StableRead)
    scan = opened(root).scan()
    assert scan.hides("user/creds.json")
    assert scan.hides("user/a/b.json")
    assert not scan.hides("creds.json")
    assert not scan.hides("user2/creds.json")


def change_size(path: Path) -> None:
    """Another size."""
    path.write_bytes(b"longer than before")


def change_content(path: Path) -> None:
    """The same size, later."""
    path.write_bytes(b"{2}")
    os.utime(path, ns=(1, 1))


def replace_file(path: Path) -> None:
    """Another file of the same size and time."""
    status = path.stat()
    other = path.with_suffix(".new")
    other.write_bytes(b"{2}")
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


def remove_file(path: Path) -> None:
    """No file."""
    path.unlink()


CHANGES = [change_size, change_content, replace_file, remove_file]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("path", ["creds.json", "a/creds.json"])
def test_moving(change: Callable[[Path], None], path: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes between its stat before and after the read is of no one version."""
    fill(root, {path: b"{1}"})
    read_all = module._read_all

    def and_change(fd: int, size: int) -> bytes:
        content = read_all(fd, size)
        change(root / path)
        return content

    monkeypatch.setattr(module, "_read_all", and_change)
    assert read(root, path)[0] == {path: Absence.MOVING}


@pytest.mark.parametrize("change", CHANGES)
def test_moved_before_the_end(change: Callable[[Path], None], root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole set is looked at again at the end: a file that changed while a later one was read is moving."""
    fill(root, {"a/x.json": b"{1}", "b.json": b"{1}"})
    read_all = module._read_all
    contents: list[bytes] = []

    def and_change(fd: int, size: int) -> bytes:
        contents.append(read_all(fd, size))
        if len(contents) == 2:
            change(root / "a/x.json")
        return contents[-1]

    monkeypatch.setattr(module, "_read_all", and_change)
    seen, _ = read(root, "a/x.json", "b.json")
    assert seen["a/x.json"] is Absence.MOVING
    assert isinstance(seen["b.json"], StableRead)


def refuse(code: int) -> Callable[..., NoReturn]:
    """A system call that fails."""

    def call(*_: object, **__: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return call


def test_damaged_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that the disk does not give is not synced, with the reason; it is not missing."""
    fill(root, {"creds.json": b"{}"})
    monkeypatch.setattr(module, "_read_all", refuse(errno.EIO))
    seen, told = read(root, "creds.json")
    assert seen == {"creds.json": Absence.UNSYNCED}
    assert os.strerror(errno.EIO) in told["creds.json"]
    assert os.strerror(errno.EIO) in opened(root).scan().unsynced["creds.json"]


def test_closed_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be entered hides what is below it, and stops nothing else."""
    fill(root, {"creds.json": b"{}", "closed/creds.json": b"{}"})
    scan_folder = os.scandir

    def scandir(path: str | Path) -> object:
        return refuse(errno.EACCES)() if str(path).endswith("closed") else scan_folder(path)

    monkeypatch.setattr(os, "scandir", scandir)
    scan = opened(root).scan()
    assert set(scan.manifest) == {"creds.json"}
    assert os.strerror(errno.EACCES) in scan.unsynced["closed"]
    assert scan.hides("closed/creds.json")


def test_closed_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root that cannot be entered is an error, 73: nothing in it is taken for missing."""
    fill(root, {"creds.json": b"{}"})
    monkeypatch.setattr(os, "open", refuse(errno.EACCES))
    with pytest.raises(FolderError):
        read(root, "creds.json")
    monkeypatch.setattr(os, "scandir", refuse(errno.EACCES))
    with pytest.raises(FolderError):
        opened(root).scan()


def test_unusable_root(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A root without the rights to use it is found at the start, 73, with whose rights are missing."""
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    with pytest.raises(FolderError) as caught:
        opened(root).make()
    assert f"uid {os.geteuid()}" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(root: Path) -> None:
    """A file without the right to read it is not synced; it is not missing."""
    fill(root, {"creds.json": b"{}"})
    (root / "creds.json").chmod(0)
    seen, told = read(root, "creds.json")
    assert seen == {"creds.json": Absence.UNSYNCED}
    assert told.keys() == {"creds.json"}


def test_rewritten(root: Path) -> None:
    """A file beside which a twin lies is being rewritten."""
    fill(root, {"creds.json.tmp": b"", "a/creds.json.bak": b"{}", "b/creds.json": b"{}"})
    paths = ["creds.json", "a/creds.json", "b/creds.json", "c/creds.json"]
    assert opened(root).rewritten(paths) == {"creds.json", "a/creds.json"}


def test_creds_nearby(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bot that writes elsewhere is found below the working directory; the folder itself is not meant."""
    home = root.parent
    fill(home, {"auth_info_baileys/creds.json": b"", "a/b/creds.json": b"", "a/b/c/creds.json": b"", "x.json": b""})
    fill(root, {"creds.json": b""})
    monkeypatch.chdir(home)
    assert opened(root).creds_nearby() == ["a/b/creds.json", "auth_info_baileys/creds.json"]


# What is written


def write(folder: Directory, files: Iterable[tuple[str, bytes]], *, staged: bool = False) -> None:
    """Write files as a restore does."""
    with folder.writing(staged=staged) as writer:
        for path, content in files:
            writer.write(path, content)


@pytest.mark.usefixtures("_open_umask")
@pytest.mark.parametrize("staged", [False, True], ids=["direct", "staged"])
def test_modes(root: Path, *, staged: bool) -> None:
    """Whatever the umask, all that is written is 0600 in folders of 0700."""
    folder = opened(root)
    write(folder, FILES.items(), staged=staged)
    if staged:
        folder.publish(FILES)
    assert found(root) == FILES
    for below in root.rglob("*"):
        assert mode(below) == (0o700 if below.is_dir() else 0o600), below


@pytest.mark.usefixtures("_open_umask")
def test_make(tmp_path: Path) -> None:
    """A missing folder is made, 0700; one that is there stays as it is."""
    root = tmp_path / "a/b/auth_info"
    opened(root).make()
    assert mode(root) == 0o700
    fill(root, {"creds.json": b"{}"})
    root.chmod(0o755)
    opened(root).make()
    assert mode(root) == 0o755
    assert found(root) == {"creds.json": b"{}"}


@pytest.mark.usefixtures("_open_umask")
def test_written_anew(tmp_path: Path) -> None:
    """A restore makes a root that is missing, 0700."""
    root = tmp_path / "a/auth_info"
    with opened(root).writing(staged=False) as writer:
        writer.write("creds.json", b"{}")
    assert found(root) == {"creds.json": b"{}"}
    assert mode(root) == 0o700


def test_make_over_a_file(root: Path) -> None:
    """A file in the place of the folder is an error, 73, that names it."""
    root.rmdir()
    root.write_bytes(b"x")
    with pytest.raises(FolderError, match="auth_info"):
        opened(root).make()
    assert root.read_bytes() == b"x"


def test_bare(root: Path) -> None:
    """A folder is bare while nothing but our own files lies in it."""
    fill(root, {".authsync.json": b"x"})
    assert opened(root).is_bare()
    fill(root, {"creds.json.tmp": b"x"})
    assert not opened(root).is_bare()


@pytest.mark.parametrize(
    "path",
    ["", "..", "../x", "a/../../x", "/x", "a//b", "a\0b", "x" * 256, ".authsync.json", "a/.authsync.sock", "\udcff"],
    ids=ascii,
)
@pytest.mark.parametrize("staged", [False, True], ids=["direct", "staged"])
def test_unsafe(path: str, root: Path, *, staged: bool) -> None:
    """A stored path that leaves the folder, or is our own, is damage, 65; nothing is written anywhere."""
    with pytest.raises(DamagedError) as caught, opened(root).writing(staged=staged) as writer:
        writer.write(path, b"x")
    assert caught.value.exit_code == 65
    caught.value.message.encode()
    assert found(root.parents[1]) == {}


@pytest.mark.parametrize("path", ["link/x", "link/a/x", "a/link/x"])
def test_linked_parent(path: str, root: Path) -> None:
    """Nothing is written through a link, at any depth."""
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "a").mkdir()
    (root / "link").symlink_to(outside)
    (root / "a/link").symlink_to(outside)
    with pytest.raises(AuthsyncError), opened(root).writing(staged=False) as writer:
        writer.write(path, b"x")
    assert found(outside) == {}


def test_linked_file(root: Path) -> None:
    """A link in the place of a file is not written through."""
    outside = root.parent / "outside"
    outside.write_bytes(b"old")
    (root / "creds.json").symlink_to(outside)
    with pytest.raises(DamagedError), opened(root).writing(staged=False) as writer:
        writer.write("creds.json", b"new")
    assert outside.read_bytes() == b"old"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param("creds.json", "creds.json", id="the same twice"),
        pytest.param("a", "a/b", id="a file, then a folder"),
        pytest.param("a/b", "a", id="a folder, then a file"),
        pytest.param("a/b", "a/b/c/d", id="a file, then a folder, deeper"),
    ],
)
def test_stored_twice(first: str, second: str, root: Path) -> None:
    """Two stored paths that cannot both be written are damage, 65; the first stays as it is."""
    with pytest.raises(DamagedError):
        write(opened(root), [(first, b"1"), (second, b"2")])
    assert found(root) == {first: b"1"}


def test_partial_writes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that the kernel takes in parts is finished."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, content: write(fd, content[:3]))
    with opened(root).writing(staged=False) as writer:
        writer.write("creds.json", b"0123456789")
    monkeypatch.undo()
    assert found(root) == {"creds.json": b"0123456789"}


def test_disk_full(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is an error of the folder, 73, with what to do."""
    monkeypatch.setattr(os, "write", refuse(errno.ENOSPC))
    with pytest.raises(FolderError) as caught, opened(root).writing(staged=False) as writer:
        writer.write("creds.json", b"{}")
    assert caught.value.exit_code == 73
    assert "space" in caught.value.hint


def test_many(root: Path) -> None:
    """More files than the writers are handed at once, in many folders, all get there; one that cannot ends it all."""
    files = {f"user_{number % 7}/{number}.json": b"%d" % number for number in range(3000)}
    write(opened(root), files.items())
    assert found(root) == files
    with pytest.raises(DamagedError, match=re.escape("user_0/0.json")):
        write(opened(root), files.items())


# Staged, then published


def stage(root: Path, files: dict[str, bytes]) -> Directory:
    """Write files into the stage."""
    folder = opened(root)
    write(folder, files.items(), staged=True)
    return folder


def test_staged(root: Path) -> None:
    """What is staged is not visible until it is published; then the stage is gone, and what was not named stays."""
    fill(root, {"creds.json": b"old", "other.json": b"stays", f"{STAGE}/left.json": b"of a killed restore"})
    folder = stage(root, {"creds.json": b"new", "a/b/c.json": b"new"})
    assert set(folder.scan().manifest) == {"creds.json", "other.json"}
    assert (root / "creds.json").read_bytes() == b"old"
    folder.publish(["creds.json", "a/b/c.json"])
    assert found(root) == {"creds.json": b"new", "a/b/c.json": b"new", "other.json": b"stays"}
    assert not (root / STAGE).exists()


def test_stage_is_a_link(root: Path) -> None:
    """A link in the place of the stage is removed, not followed."""
    outside = root.parent / "outside"
    fill(outside, {"precious": b"x"})
    (root / STAGE).symlink_to(outside)
    stage(root, {"creds.json": b"new"}).publish(["creds.json"])
    assert found(outside) == {"precious": b"x"}
    assert found(root) == {"creds.json": b"new"}


def test_stage_dropped(root: Path) -> None:
    """What a staged restore left that did not finish is removed, and nothing else."""
    folder = stage(root, {"a/creds.json": b"new"})
    fill(root, {"creds.json": b"old"})
    folder.drop_stage()
    folder.drop_stage()
    assert found(root) == {"creds.json": b"old"}
    assert not (root / STAGE).exists()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({"x": b"old"}, {"x/y/z": b"new"}, id="a file where a folder goes"),
        pytest.param({"x/y": b"old"}, {"x/y/z": b"new"}, id="a file where a folder goes, deeper"),
        pytest.param({"x/y/z": b"old", "x/w": b"old"}, {"x": b"new"}, id="a folder where a file goes"),
    ],
)
def test_in_the_way(before: dict[str, bytes], after: dict[str, bytes], root: Path) -> None:
    """What stands in the way of a stored file or folder goes."""
    fill(root, before)
    stage(root, after).publish(after)
    assert found(root) == after


def test_folder_of_links_in_the_way(root: Path) -> None:
    """A folder in the way is removed with the links in it, not with what they lead to."""
    fill(root, {"x/y/z": b"old"})
    make_folder_link(root / "x" / "odd")
    volume = root / "volume"
    stage(root, {"x": b"new"}).publish(["x"])
    assert found(root) == {"x": b"new", "volume/creds.json": b"{}"}
    assert volume.is_dir()


@pytest.mark.parametrize("make", [make_link, make_folder_link, make_dangling_link, make_fifo, make_socket])
@pytest.mark.parametrize("path", ["odd", "odd/x.json"], ids=["file", "folder"])
def test_odd_in_the_way(make: Callable[[Path], None], path: str, root: Path) -> None:
    """A link or the like in the way is removed, and never followed."""
    make(root / "odd")
    outside = {name: content for name, content in found(root.parent).items() if not name.startswith(root.name)}
    stage(root, {path: b"new"}).publish([path])
    assert found(root) == {path: b"new"}
    assert outside.items() <= found(root.parent).items()
    assert not (root / path).is_symlink()


def test_remove(root: Path) -> None:
    """Removing files removes the folders that this empties, and no others; what is gone already is no error."""
    fill(root, {"a/b/x": b"", "a/y": b"", "c/z": b"", "c/w": b"", "top": b""})
    opened(root).remove(["a/b/x", "a/y", "c/z", "top", "gone", "gone/too"])
    assert found(root) == {"c/w": b""}
    assert [path.name for path in root.iterdir()] == ["c"]


def test_remove_all(root: Path) -> None:
    """Removing the last file leaves the root, which may be a mount point, or watched."""
    fill(root, {"creds.json": b"{}"})
    opened(root).remove(["creds.json"])
    assert list(root.iterdir()) == []


def test_set_aside_twice(root: Path) -> None:
    """A name that is taken is an error, 73, and loses nothing."""
    fill(root, {"creds.json": b"1"})
    aside = opened(root).set_aside("20261118T123000")
    fill(root, {"creds.json": b"2"})
    with pytest.raises(FolderError):
        opened(root).set_aside("20261118T123000")
    assert (found(aside), found(root)) == ({"creds.json": b"1"}, {"creds.json": b"2"})


def test_set_aside(root: Path) -> None:
    """A folder that is set aside is whole beside an empty one; the marker does not go along."""
    fill(root, FILES | {".authsync.json": b"x"})
    aside = opened(root).set_aside("20261118T123000")
    assert aside == root.with_name("auth_info.before-20261118T123000")
    assert found(aside) == FILES
    assert found(root) == {}
    assert mode(root) == 0o700


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EXDEV])
def test_set_aside_a_mount(code: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is a mount point cannot be renamed: its files are copied, whatever else lies there."""
    fill(root, FILES | {".authsync.json": b"x", "creds.json.tmp": b"{"})
    make_dangling_link(root / "link")
    make_socket(root / "socket")
    make_fifo(root / "fifo")
    monkeypatch.setattr(Path, "rename", refuse(code))
    aside = opened(root).set_aside("20261118T123000")
    assert FILES.items() <= found(aside).items()
    assert ".authsync.json" not in found(aside)
    assert mode(aside) == 0o700
    assert found(root).keys() <= {".authsync.json"}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts its descriptors in /proc")
def test_no_descriptor_left(root: Path) -> None:
    """Whatever is read and written, well or badly, every descriptor is given back."""
    fill(root, FILES)
    make_folder_link(root / "user")
    make_fifo(root / "fifo")
    folder = opened(root)
    before = len(list(Path("/proc/self/fd").iterdir()))
    folder.scan()
    read(root, *FILES, "user/creds.json", "fifo", "none/x", "creds.json/x", "a")
    for second in ("x/y", "x/y/z", "../x"):
        with pytest.raises(DamagedError):
            write(folder, [("x/y", b""), (second, b"")], staged=True)
    stage(root, {"x/y": b""}).publish(["x/y"])
    assert len(list(Path("/proc/self/fd").iterdir())) == before
