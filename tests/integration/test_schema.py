"""The schema: made once however many start at once, with the rights that there are, and known to every statement."""

from __future__ import annotations

import importlib
import pkgutil
import re
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from authsync import store
from authsync.errors import BugError, ConfigError, MissingSchemaError, RightsError
from authsync.store import files, schema, sessions, snapshots
from authsync.store.connection import Database
from tests.integration.world import PATIENT, WAIT_S, World, in_thread, until
from tests.support.bots import contents, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from tests.support.postgres import TestServer

PASSWORD = "secret"
LEAST_RIGHTS = """
GRANT USAGE ON SCHEMA authsync TO {role};
GRANT SELECT ON authsync.migrations TO {role};
GRANT SELECT, INSERT, UPDATE ON authsync.sessions TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON authsync.files, authsync.snapshots, authsync.owners TO {role};
"""
"""All that a user needs on a current schema. Making and migrating it takes an administrator."""


# Made and migrated


@pytest.fixture
def empty(dsn: str) -> Iterator[Database]:
    """An empty database."""
    db = Database(dsn, "authsync")
    yield db
    db.close()


def ensured(db: Database) -> int | None:
    """The version that ``ensure`` made."""
    return db.call(lambda connection: schema.ensure(connection, db))


def test_made_once(empty: Database) -> None:
    """An empty database gets the newest schema; the next start has nothing to do."""
    assert ensured(empty) == schema.SCHEMA_VERSION == max(m.version for m in schema.migrations())
    assert ensured(empty) is None
    empty.call(lambda connection: schema.require(connection, empty))


def test_two_at_once(dsn: str, empty: Database) -> None:
    """Of two containers that start on an empty database at once, one makes the schema and the other finds it made."""
    other = Database(dsn, "authsync")
    with psycopg.connect(dsn) as holder:
        holder.execute("SELECT pg_advisory_xact_lock(%s)", [schema._LOCK_KEY])
        both = [in_thread(lambda db=db: ensured(db)) for db in (empty, other)]  # type: ignore[misc]
        with psycopg.connect(dsn, autocommit=True) as eye:
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            until(lambda: eye.execute(waiting).fetchone() == (2,), "both found an empty database")
    versions = [future.result(WAIT_S) for future in both]
    other.close()
    assert sorted(versions, key=bool) == [None, schema.SCHEMA_VERSION]
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT count(*) FROM authsync.migrations").fetchone() == (schema.SCHEMA_VERSION,)


def add_migration(newer: pytest.MonkeyPatch, migration: schema.Migration) -> None:
    """Have the program be a newer one, with one more migration."""
    known = schema.migrations()
    newer.setattr(schema, "SCHEMA_VERSION", migration.version)
    newer.setattr(schema, "migrations", lambda: [*known, migration])


def test_nothing_half_made(empty: Database, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that fails leaves the database as it was."""
    broken = schema.Migration(version=2, min_compatible_version=1, text="CREATE TABLE {s}.more (); SELECT 1/0;")
    add_migration(monkeypatch, broken)
    with pytest.raises(BugError, match="division by zero"):
        ensured(empty)
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('authsync')").fetchone() == (None,)


def test_next_migration(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer program runs the migrations that are missing, and only those; the older one goes on."""
    owner = world.owner()
    owner.flush({"creds.json": b"{}"})
    more = schema.Migration(version=2, min_compatible_version=1, text="ALTER TABLE {s}.sessions ADD COLUMN more int;")
    with monkeypatch.context() as newer:
        add_migration(newer, more)
        assert ensured(world.database()) == 2
    assert ensured(owner.db) is None
    assert owner.flush({"creds.json": b"[]"}) == 2


def test_missing(empty: Database) -> None:
    """A command that may not make the schema says how to get it."""
    with pytest.raises(MissingSchemaError) as error:
        empty.call(lambda connection: schema.require(connection, empty))
    assert (error.value.exit_code, error.value.hint) == (78, "run: authsync init")


# Versions


def _newer(world: World, *, min_compatible: int) -> None:
    world.stored.execute(
        "INSERT INTO {s}.migrations (version, min_compatible_version) VALUES (%s, %s)",
        schema.SCHEMA_VERSION + 1,
        min_compatible,
    )


def test_newer_compatible(world: World) -> None:
    """The old container runs on the new schema during a deploy, and after a rollback."""
    _newer(world, min_compatible=schema.SCHEMA_VERSION)
    write(world.home / "auth_info", {"creds.json": b"{}"})
    started = world.start()
    assert "schema_migrated" not in started.events()
    assert world.stored.files() == {"creds.json": b"{}"}


def test_newer_incompatible(world: World) -> None:
    """A program is refused below the version that the schema still works with: 78, and nothing is touched."""
    _newer(world, min_compatible=schema.SCHEMA_VERSION + 1)
    write(world.home / "auth_info", {"creds.json": b"{}"})
    with pytest.raises(ConfigError, match="newer") as error:
        world.start()
    assert error.value.exit_code == 78
    assert not isinstance(error.value, MissingSchemaError)
    assert world.stored.owners() == []
    for check in (schema.require, schema.current_version):
        with pytest.raises(ConfigError):
            world.database().call(lambda c, check=check: check(c, world.database()))  # type: ignore[misc]


# Rights


@pytest.fixture
def role(server: TestServer) -> Iterator[str]:
    """A user that owns nothing. Ask for it before the database in which it gets rights: that is dropped first."""
    name = server.create_role(PASSWORD)
    yield name
    server.start()
    server.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_least_rights(role: str, world: World) -> None:
    """On a current schema a user with LEAST_RIGHTS does all that a run, a backup, a rollback and a delete do."""
    world.stored.execute(LEAST_RIGHTS.replace("{role}", role))
    dsn = make_conninfo(world.dsn, user=role, password=PASSWORD)
    root = world.home / "auth_info"
    write(root, {"creds.json": b"{}"})
    started = world.start(dsn=dsn)
    write(root, {"creds.json": b'{"a":1}', "b.json": b"1"})
    assert started.flush().revision == 2
    started.line.take_snapshot("manual", trying=PATIENT)
    started.line.keep_copy("a copy", trying=PATIENT)
    db = started.opening.db
    kept = db.call(lambda c: snapshots.list_all(c, db, "default"))
    db.call(lambda c: snapshots.forget(c, db, "default", [one.number for one in kept]))
    db.call(lambda c: snapshots.prune(c, db, "default"))
    started.end()

    again = world.start("elsewhere", dsn=dsn)
    assert contents(again.root) == {"creds.json": b'{"a":1}', "b.json": b"1"}
    assert db.call(lambda c: sessions.status(c, db, "default"))
    assert db.call(lambda c: sessions.delete(c, db, again.line.fence))


def test_no_rights_on_empty(role: str, dsn: str) -> None:
    """A user who may not make the schema gets 77 and the way out; the database stays as it is."""
    db = Database(make_conninfo(dsn, user=role, password=PASSWORD), "authsync")
    with pytest.raises(RightsError) as error:
        ensured(db)
    db.close()
    assert error.value.exit_code == 77
    assert "init --print-sql" in error.value.hint
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT to_regnamespace('authsync')").fetchone() == (None,)


def test_no_rights_at_all(role: str, world: World) -> None:
    """A user without any right on a current schema gets 77, not a schema that seems to be missing."""
    db = world.database(make_conninfo(world.dsn, user=role, password=PASSWORD))
    for check in (schema.ensure, schema.require):
        with pytest.raises(RightsError) as error:
            db.call(lambda c, check=check: check(c, db))  # type: ignore[misc]
        assert error.value.exit_code == 77


def test_one_right_missing(role: str, world: World) -> None:
    """A right that is missing on one table is 77 as well, and names the table."""
    world.stored.execute(LEAST_RIGHTS.replace("{role}", role) + f"REVOKE INSERT ON authsync.owners FROM {role}")
    with pytest.raises(RightsError, match="owners"):
        world.start(dsn=make_conninfo(world.dsn, user=role, password=PASSWORD))


# Printed


@pytest.mark.parametrize("name", ["authsync", 'My "schema"; --', "ação"])
def test_print_sql(server: TestServer, name: str) -> None:
    """What ``init --print-sql`` prints makes the very schema that a start makes, under any name."""
    printed, made = (server.create_database() for _ in range(2))
    db = Database(made, name)
    assert ensured(db) == schema.SCHEMA_VERSION
    db.close()
    administrator = Database(printed, name)
    with psycopg.connect(printed, autocommit=True) as connection:
        connection.execute(schema.print_sql(administrator).encode())
    assert ensured(administrator) is None
    administrator.close()

    assert catalogue(printed, name) == catalogue(made, name)
    for dsn in (printed, made):
        server.drop_database(dsn)


CATALOGUE = {
    "relations": """
        SELECT relname, relkind, relpersistence, reloptions, relacl FROM pg_class
         WHERE relnamespace = %(s)s::regnamespace
    """,
    "columns": """
        SELECT relname, attname, attnum, format_type(atttypid, atttypmod), attnotnull, attidentity, attstorage,
               collname, pg_get_expr(adbin, adrelid)
          FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
          LEFT JOIN pg_attrdef d ON (adrelid, adnum) = (attrelid, attnum)
          LEFT JOIN pg_collation l ON l.oid = attcollation
         WHERE relnamespace = %(s)s::regnamespace AND attnum > 0
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, contype, convalidated, pg_get_constraintdef(oid)
          FROM pg_constraint WHERE connamespace = %(s)s::regnamespace
    """,
    "indexes": """
        SELECT indexrelid::regclass::text, indisunique, indisvalid, pg_get_indexdef(indexrelid)
          FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE relnamespace = %(s)s::regnamespace
    """,
    "views": """
        SELECT relname, pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v' AND relnamespace = %(s)s::regnamespace
    """,
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = %(s)s::regnamespace",
    "triggers": """
        SELECT tgname FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = %(s)s::regnamespace
    """,
}


def catalogue(dsn: str, name: str) -> dict[str, list[dict[str, Any]]]:
    """All that a dump would show of a schema, and the migrations that it records."""
    quoted = sql.Identifier(name).as_string(None)
    with psycopg.connect(dsn, row_factory=dict_row) as connection:
        found = {
            kind: sorted(connection.execute(query.encode(), {"s": quoted}).fetchall(), key=str)
            for kind, query in CATALOGUE.items()
        }
        recorded = sql.SQL("SELECT version, min_compatible_version FROM {}.migrations ORDER BY 1")
        found["migrations"] = connection.execute(recorded.format(sql.Identifier(name))).fetchall()
    assert len(found["relations"]) > 10
    return found


# Statements


def _statements() -> dict[str, str]:
    """Every SQL constant of ``authsync/store``: module-level, in capitals, and beginning as a statement does."""
    found = {}
    for entry in pkgutil.iter_modules(store.__path__):
        module: ModuleType = importlib.import_module(f"authsync.store.{entry.name}")
        for name, value in vars(module).items():
            if name.isupper() and isinstance(value, str) and _STATEMENT.match(value):
                found[f"{entry.name}.{name}"] = value
    return found


_STATEMENT = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b")
_PARAMETER = re.compile(r"%\((\w+)\)[sb]")
STATEMENTS = _statements()


def test_statements_are_found() -> None:
    """The statements that the next tests look at are those of the program."""
    some = {"files.FLUSH", "files.READ_FILES", "leases.ACQUIRE", "schema._RECORD", "snapshots.TAKE"}
    assert some <= STATEMENTS.keys()
    assert len(STATEMENTS) > 25


@pytest.mark.parametrize("name", STATEMENTS)
def test_prepares(world: World, name: str) -> None:
    """PostgreSQL understands each statement: its tables, its columns, and the types of its parameters."""
    numbers: dict[str, int] = {}
    text = world.database().sql(STATEMENTS[name]).decode()
    text = _PARAMETER.sub(lambda found: f"${numbers.setdefault(found[1], len(numbers) + 1)}", text).replace("%%", "%")
    with psycopg.connect(world.dsn) as connection:
        connection.execute(f"PREPARE one AS {text}".encode())


FENCE = {"session": "default", "owner": "0" * 32, "token": 1, "revision": 1, "push": "1" * 32}
CHANGE = {
    **FENCE,
    "digest": b"",
    "file_count": 1,
    "total_bytes": 1,
    "state": None,
    "removed": ["file-7.json"],
    "paths": ["creds.json"],
    "sizes": [1],
    "digests": [b""],
    "texts": [True],
    "contents": [b""],
}
VIEW = {"session": "default", "branch": 0, "generation": files.LIVE_GENERATION}
POINTED: dict[str, tuple[str, dict[str, Any]]] = {
    "flush": (files.FLUSH, CHANGE),
    "flush, next chunk": (files.FLUSH_MORE, CHANGE),
    "restore: manifest": (files.READ_MANIFEST, VIEW),
    "restore: all files": (files.READ_FILES, VIEW),
    "restore: some files": (files.READ_SOME_FILES, {**VIEW, "paths": ["creds.json", "file-7.json"]}),
    "restore: identities": (sessions.CREDS_FILES, VIEW),
}


@pytest.mark.parametrize("analyzed", [True, False], ids=["analyzed", "never analyzed"])
@pytest.mark.parametrize("other", ["one large session", "ten sessions"])
def test_primary_key(world: World, other: str, analyzed: bool) -> None:  # noqa: FBT001
    """With 10,000 rows the flush and the restore reach their rows by the primary key, whoever else is stored.

    A restore of the only session there is may read the table as it lies: it needs every row.
    """
    alone = other == "one large session"
    world.owner().flush({"creds.json": b"{}"})
    world.stored.execute(
        """
        INSERT INTO {s}.files (session_id, path, born, size, sha256, is_text, content)
        SELECT CASE WHEN %s OR n %% 10 = 0 THEN 'default' ELSE 'other-' || n %% 10 END, 'file-' || n || '.json', 1, 1,
               sha256('1'), true, '1' FROM generate_series(1, 10000) n
        """,
        alone,
    )
    if analyzed:
        world.stored.execute("ANALYZE {s}.files, {s}.sessions")
    with psycopg.connect(world.dsn) as connection:
        for name, (text, values) in POINTED.items():
            row = connection.execute(b"EXPLAIN (FORMAT JSON) " + world.database().sql(text), values).fetchone()
            assert row is not None
            scans = [node for node in _nodes(row[0][0]["Plan"]) if "Scan" in node["Node Type"] and _on_files(node)]
            assert scans, name
            if not (alone and name in {"restore: manifest", "restore: all files", "restore: identities"}):
                used = {node.get("Index Name", node["Node Type"]) for node in scans} - {"Bitmap Heap Scan"}
                assert used == {"files_pkey"}, name


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", []):
        yield from _nodes(inner)


def _on_files(node: dict[str, Any]) -> bool:
    return node.get("Relation Name") == "files" or str(node.get("Index Name", "")).startswith("files")
