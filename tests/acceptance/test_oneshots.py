"""The commands that an operator gives: each does its one thing, and refuses what would lose something."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import stat
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.support.bots import MASKED, NUMBER, contents, creds, session, shell, write
from tests.support.run import until
from tests.support.stored import Stored

if TYPE_CHECKING:
    from pathlib import Path

    from tests.acceptance.conftest import Starter
    from tests.support.postgres import TestServer


@pytest.fixture
def kept(start: Starter, folder: Path) -> dict[str, bytes]:
    """A session that is stored, and whose folder is there, after an end in good order."""
    write(folder, session())
    assert start.once("run", "--", "true")[0] == 0
    return session()


def everything(stored: Stored) -> list[list[dict[str, Any]]]:
    """All rows of all tables."""
    tables = ("sessions", "files", "snapshots", "owners", "migrations")
    return [stored.rows(f"SELECT * FROM {{s}}.{table} AS row ORDER BY row::text") for table in tables]


# init

CATALOG = """
SELECT concat_ws(' ', table_name, column_name, data_type, column_default, is_nullable) AS line
  FROM information_schema.columns WHERE table_schema = 'authsync'
UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'authsync'
UNION ALL SELECT definition FROM pg_views WHERE schemaname = 'authsync'
UNION ALL SELECT concat_ws(' ', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint
           WHERE connamespace = 'authsync'::regnamespace
UNION ALL SELECT concat_ws(' ', relname, array_to_string(reloptions, ',')) FROM pg_class
           WHERE relnamespace = 'authsync'::regnamespace
UNION ALL SELECT concat_ws(' ', version, min_compatible_version) FROM authsync.migrations
ORDER BY line
"""


def test_init(start: Starter, stored: Stored) -> None:
    """``init`` makes the schema; a second one finds it current and changes nothing."""
    assert start.once("init")[0] == 0
    before = everything(stored), stored.rows(CATALOG)
    assert start.once("init")[0] == 0
    assert (everything(stored), stored.rows(CATALOG)) == before


def test_print_sql(start: Starter, stored: Stored, server: TestServer) -> None:
    """What ``init --print-sql`` prints, without a database, makes the same schema as ``init`` does."""
    code, run = start.once("init", "--print-sql", url="")
    assert code == 0
    by_hand = server.create_database()
    with psycopg.connect(by_hand, autocommit=True) as connection:
        connection.execute(run.stdout.encode())
    assert start.once("init")[0] == 0
    assert Stored(by_hand).rows(CATALOG) == stored.rows(CATALOG)
    code, run = start.once("run", "--", "true", url=by_hand)
    assert (code, run.logged("schema_migrated")) == (0, [])
    server.drop_database(by_hand)


# restore


def test_restore(start: Starter, stored: Stored, folder: Path, kept: dict[str, bytes]) -> None:
    """``restore`` fills an empty folder, closed to others, and writes nothing into the database."""
    shutil.rmtree(folder)
    before = everything(stored)
    done = start.json("restore")
    assert (done["restored"], done["files"], done["files_written"]) == (True, len(kept), len(kept))
    assert contents(folder) == kept
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert start.json("restore")["files_written"] == 0
    assert everything(stored) == before
    run = start.idle()
    assert not run.logged("copy_kept")


def test_restore_nothing(start: Starter, folder: Path) -> None:
    """Where nothing is stored ``restore`` says so, and leaves the folder alone."""
    assert start.once("init")[0] == 0
    write(folder, session())
    assert start.json("restore") == {"restored": False}
    assert contents(folder) == session()


def test_restore_dry_run(start: Starter, stored: Stored, folder: Path, kept: dict[str, bytes]) -> None:
    """``restore --dry-run`` tells what would change, and changes nothing, in the folder or in the database."""
    write(folder, {"pre-key-1.json": b"0", "more.json": b"{}"})
    (folder / "pre-key-2.json").unlink()
    before = everything(stored), contents(folder), sorted(folder.iterdir())
    told = start.json("restore", "--dry-run")
    assert told == {"stored": len(kept), "write": ["pre-key-1.json", "pre-key-2.json"], "remove": ["more.json"]}
    code, run = start.once("restore", "--dry-run", "--force")
    assert (code, run.stdout.splitlines()[0]) == (0, "write   pre-key-1.json")
    assert (everything(stored), contents(folder), sorted(folder.iterdir())) == before


def test_restore_over_changes(start: Starter, stored: Stored, folder: Path, kept: dict[str, bytes]) -> None:
    """Changes that are not stored are not overwritten, 73; with --force they are kept beside the folder."""
    write(folder, {"pre-key-1.json": b"newer"})
    before = everything(stored)
    _, hint = start.fails(73, "restore")
    assert "authsync backup" in hint
    assert "--force" in hint
    assert contents(folder) == {**kept, "pre-key-1.json": b"newer"}
    done = start.json("restore", "--force")
    assert contents(folder) == kept
    asides = list(folder.parent.glob("auth_info.before-*"))
    assert [str(aside) for aside in asides] == [done["kept_in"]]
    assert contents(asides[0]) == {**kept, "pre-key-1.json": b"newer"}
    assert everything(stored) == before


def test_restore_under_bot(start: Starter, folder: Path, kept: dict[str, bytes]) -> None:
    """No restore into a folder where a bot of ours runs, --force or not: 75."""
    run = start.idle()
    (folder / "pre-key-1.json").write_bytes(b"newer")
    for options in ([], ["--force"]):
        start.fails(75, "restore", *options)
    assert contents(folder) == {**kept, "pre-key-1.json": b"newer"}
    assert run.stop() == 0


def test_restore_to(start: Starter, stored: Stored, folder: Path) -> None:
    """``restore --to`` writes the live state, a snapshot, a moment, or a part of one, into another folder."""
    first, second = session(), {**session(), "creds.json": creds(counter=2), "user_17/creds.json": creds("b")}
    write(folder, first)
    number = start.json("backup", "--reason", "before")["snapshot"]
    between = dt.datetime.now(tz=dt.UTC).isoformat()
    write(folder, second)
    start.json("backup")
    before = everything(stored)
    for options, expected in (
        ([], second),
        (["--snapshot", str(number)], first),
        (["--at", between], first),
        (["--at", "0s", "--only", "user_17/*"], {"user_17/creds.json": creds("b")}),
    ):
        target = folder.with_name("-".join(["to", *options]).replace("/", "_"))
        assert start.json("restore", "--to", str(target), *options)["files"] == len(expected)
        assert contents(target) == expected
        assert not (target / ".authsync.json").exists()
    assert everything(stored) == before
    start.fails(73, "restore", "--to", str(folder))
    assert contents(folder) == second
    start.fails(64, "restore", "--to", "new", "--snapshot", "9999")
    for options in (["--snapshot", "1"], ["--at", "1h"], ["--only", "*"]):
        _, hint = start.fails(64, "restore", *options)
        assert "rollback" in hint


# backup


def test_backup(start: Starter, stored: Stored, folder: Path) -> None:
    """``backup`` adopts a folder, with a snapshot that carries the note; the next start there just goes on."""
    write(folder, session())
    assert start.json("backup", "--dry-run") == {"store": sorted(session()), "remove": []}
    assert not stored.session
    done = start.json("backup", "--reason", "first")
    assert (done["by_owner"], done["revision"], done["files"], done["changed"]) == (False, 1, 9, 9)
    assert stored.files() == session()
    assert [(row["reason"], row["note"]) for row in stored.snapshots()] == [("manual", "first")]
    write(folder, {"creds.json": creds(counter=1)})
    assert start.json("backup", "--dry-run") == {"store": ["creds.json"], "remove": []}
    run = start.idle()
    assert stored.file("creds.json") == creds(counter=1)
    assert not run.logged("copy_kept")


def test_backup_by_owner(start: Starter, stored: Stored, folder: Path, kept: dict[str, bytes]) -> None:
    """Where a ``run`` owns the session it makes the backup on request, from wherever that comes."""
    run = start.idle("--debounce", "1m", "--max-delay", "1m")
    write(folder, {"creds.json": creds(counter=1)})
    done = start.json("backup", "--reason", "asked", "--dir", "elsewhere")
    assert (done["by_owner"], done["revision"]) == (True, stored.revision)
    assert stored.files() == {**kept, "creds.json": creds(counter=1)}
    assert stored.snapshot_files(done["snapshot"]) == stored.files()
    assert stored.snapshots()[-1]["note"] == "asked"
    assert run.stop() == 0


def test_backup_stale(start: Starter, stored: Stored, folder: Path, kept: dict[str, bytes]) -> None:
    """A folder that does not follow what is stored is refused, 75; --force keeps the stored state as a snapshot."""
    shutil.copytree(folder, folder.with_name("old"))
    write(folder, {"creds.json": creds(counter=1)})
    assert start.once("run", "--", "true")[0] == 0
    newer = {**kept, "creds.json": creds(counter=1)}
    old = {**kept, "pre-key-1.json": b'{"n": "of another origin"}'}
    write(folder.with_name("old"), old)
    before = stored.revision
    _, hint = start.fails(75, "backup", "--dir", "old")
    assert "--force" in hint
    assert (stored.revision, stored.files()) == (before, newer)
    start.json("backup", "--dir", "old", "--force")
    assert stored.files() == old
    assert newer in [stored.snapshot_files(row["number"]) for row in stored.snapshots()]


# status


def test_status(start: Starter, folder: Path) -> None:
    """``status`` tells who owns the session and how safe it is; numbers are masked unless asked for."""
    assert start.json("status")["state"] == "absent"
    write(folder, session())
    run = start.idle()
    running = start.json("status")
    assert (running["state"], running["revision"], running["files"]) == ("live", 1, 9)
    assert (running["owned"], running["owner"]["command"]) == (True, "run")
    assert running["families"] == {"creds": 1, "pre-key": 8}
    assert running["bots"] == [{"bot": ".", "paired": True, "number": MASKED, "files": 9}]
    assert (running["folder"]["unflushed"], running["folder"]["missing"]) == (0, 0)
    assert start.json("status", "--show-number")["bots"][0]["number"] == NUMBER
    assert run.stop() == 0
    write(folder, {"creds.json": creds(counter=1)})
    ended = start.json("status")
    assert (ended["owned"], ended["owner"], ended["folder"]["unflushed"]) == (False, None, 1)
    assert (ended["owners"][0]["command"], ended["owners"][0]["outcome"]) == ("run", "SIGTERM, code 0")
    for options, shown in ([], MASKED), (["--show-number"], NUMBER):
        code, run = start.once("status", *options)
        assert (code, shown in run.stdout) == (0, True)
        assert NUMBER not in run.stdout or options
    assert NUMBER not in run.stderr


# delete


def test_delete(start: Starter, stored: Stored, folder: Path, kept: dict[str, bytes]) -> None:
    """``delete`` asks, removes files and history, and leaves a tombstone; a start does not bring anything back."""
    before = everything(stored)
    assert start.once("delete", stdin="n\n")[0] != 0
    assert everything(stored) == before
    assert start.once("delete", stdin="y\n")[0] == 0
    assert stored.session["state"] == "deleted"
    assert stored.rows("SELECT * FROM {s}.files") == stored.snapshots() == []
    assert contents(folder) == kept
    run = start.idle()
    assert run.logged("session_absent")
    assert contents(folder) == {}
    write(folder, session(key="b"))
    until(lambda: stored.session["state"] == "live", "the new identity is stored")


def test_delete_owned(start: Starter, stored: Stored, kept: dict[str, bytes]) -> None:
    """``delete`` is refused while a process owns the session, 75, and names it; --yes asks nothing."""
    run = start.idle()
    message, _ = start.fails(75, "delete", "--yes")
    assert stored.owners()[-2]["host"] in message
    assert stored.files() == kept
    assert run.stop() == 0
    assert start.once("delete", "--yes")[0] == 0
    assert stored.files() == {}


# rollback


def test_rollback(start: Starter, stored: Stored, folder: Path, kept: dict[str, bytes]) -> None:
    """``rollback`` makes a snapshot live as a new revision, after a snapshot of the present; the next start has it."""
    number = start.json("backup")["snapshot"]
    write(folder, {"creds.json": creds(counter=1), "more.json": b"{}"})
    start.json("backup")
    newer, revision = stored.files(), stored.revision
    before = start.json("rollback", str(number))["snapshot_before"]
    assert (stored.revision, stored.files()) == (revision + 1, kept)
    assert stored.snapshot_files(before) == newer
    start.idle()
    assert contents(folder) == kept


# The table of the system that authsync replaces

OLD_TABLE = """
CREATE TABLE whatsapp_sessions (
    id SERIAL PRIMARY KEY,
    session_id VARCHAR(100) DEFAULT 'default' UNIQUE,
    session_data JSONB NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
)
"""


def test_old_table(start: Starter, stored: Stored, folder: Path) -> None:
    """The old table is imported once, as revision 1, and never written; what was deleted does not come back from it."""
    nested = {"keyPair": {"public": "ü"}, "list": [1, 2.5, None]}
    old = {"creds.json": creds().decode(), "key-1.json": "not JSON", "app-state-sync-key-2.json": nested}
    stored.execute(OLD_TABLE)
    stored.execute("INSERT INTO whatsapp_sessions (session_data) VALUES (%s)", json.dumps(old))
    before = stored.rows("SELECT * FROM whatsapp_sessions")
    run = start("run", "--", *shell("ls auth_info"))
    assert run.wait() == 0
    assert run.stdout.split() == sorted(old)
    assert run.wait_logged("legacy_imported")["files"] == 3
    expected = contents(folder)
    assert stored.revision == 1
    assert stored.files() == expected
    assert (expected["creds.json"], expected["key-1.json"]) == (creds(), b"not JSON")
    assert json.loads(expected["app-state-sync-key-2.json"]) == nested
    view = stored.rows("SELECT session_data FROM {s}.whatsapp_sessions WHERE session_id = 'default'")
    assert view == [{"session_data": {path: content.decode() for path, content in expected.items()}}]
    assert stored.rows("SELECT * FROM whatsapp_sessions") == before

    stored.execute("UPDATE whatsapp_sessions SET session_data = '{}', updated_at = now() + interval '1 day'")
    shutil.rmtree(folder)
    run = start.idle()
    assert contents(folder) == expected
    assert run.wait_logged("legacy_still_written")["level"] == "warning"
    assert run.stop() == 0

    stored.execute("UPDATE whatsapp_sessions SET session_data = %s", json.dumps(old))
    assert start.once("delete", "--yes")[0] == 0
    run = start.idle()
    assert not run.logged("legacy_imported")
    assert contents(folder) == stored.files() == {}
