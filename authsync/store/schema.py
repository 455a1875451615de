"""The schema: made and migrated in one transaction under a transaction-level lock, so that two starts at once are fine.

Migrations are expand and contract: each names the oldest program that still works on what it leaves
(``min_compatible_version``), since the old container runs on the new schema during a deploy and after a rollback.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources

import psycopg

from authsync.errors import ConfigError, MissingSchemaError, RightsError
from authsync.store.connection import Connection, Database

SCHEMA_VERSION = 1
"""What this program was written for: the number of the newest migration."""

_LOCK_KEY = 0x617574687379  # 'authsy'; a transaction-level lock works through PgBouncer, a session's does not
_MIN_COMPATIBLE = re.compile(r"^-- min_compatible_version: (\d+)$", re.MULTILINE)

READ_VERSION = "SELECT max(version), max(min_compatible_version) FROM {s}.migrations"
HAS_TABLE = "SELECT to_regclass(%(name)s) IS NOT NULL"
_PREPARE = """
CREATE SCHEMA IF NOT EXISTS {s};
CREATE TABLE IF NOT EXISTS {s}.migrations (
    version integer PRIMARY KEY,
    min_compatible_version integer NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""
# The least rights of a role that only runs bots; it needs no right to create anything.
_GRANTS = """
-- For a runtime role, say authsync_bot, that does not own the schema:
-- GRANT USAGE ON SCHEMA {s} TO authsync_bot;
-- GRANT SELECT ON {s}.migrations TO authsync_bot;
-- GRANT SELECT, INSERT, UPDATE ON {s}.sessions TO authsync_bot;
-- GRANT SELECT, INSERT, UPDATE, DELETE ON {s}.files, {s}.snapshots, {s}.owners TO authsync_bot;
"""
_RECORD = "INSERT INTO {s}.migrations (version, min_compatible_version) VALUES (%(version)s, %(min_compatible)s)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One file of ``migrations/``."""

    version: int
    min_compatible_version: int
    text: str


def migrations() -> list[Migration]:
    """All migrations, the oldest first."""
    found = []
    for file in resources.files("authsync.store").joinpath("migrations").iterdir():
        if file.name.endswith(".sql"):
            text = file.read_text(encoding="utf-8")
            oldest = _MIN_COMPATIBLE.search(text)
            if oldest is None:
                raise ConfigError(f"the migration {file.name} names no min_compatible_version")
            found.append(Migration(version=int(file.name[:4]), min_compatible_version=int(oldest[1]), text=text))
    return sorted(found, key=lambda migration: migration.version)


def print_sql(db: Database) -> str:
    """What ``ensure`` would run on an empty database, for somebody who has the rights."""
    parts = [db.sql(_PREPARE).decode()]
    for migration in migrations():
        parts.append(db.sql(migration.text).decode())
        parts.append(
            db.sql(_RECORD).decode()
            % {"version": migration.version, "min_compatible": migration.min_compatible_version}
            + ";\n"
        )
    return "BEGIN;\n" + "\n".join(parts) + "COMMIT;\n" + db.sql(_GRANTS).decode()


def current_version(connection: Connection, db: Database) -> int:
    """The version in the database; 0 for none.

    Raises:
        ConfigError: the schema is too new for this program.
    """
    try:
        row = connection.execute(db.sql(READ_VERSION)).fetchone()
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        return 0
    version, min_compatible = row if row is not None and row[0] is not None else (0, 0)
    if min_compatible > SCHEMA_VERSION:
        raise ConfigError(
            f"the database schema is version {version} and works with authsync schema {min_compatible} or newer; "
            f"this one is {SCHEMA_VERSION}",
            hint="run a newer authsync",
        )
    return int(version)


def ensure(connection: Connection, db: Database) -> int | None:
    """Make or migrate the schema where it is older than this program; needs no rights on a current one.

    Returns:
        The new version, or None where nothing had to be done.

    Raises:
        RightsError: a migration is needed, and this user may not run it.
        ConfigError: the schema is too new.
    """
    if current_version(connection, db) >= SCHEMA_VERSION:
        return None
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK_KEY])
            # Another start may have migrated while we waited. CREATE … IF NOT EXISTS needs rights even where it exists.
            exists = connection.execute(db.sql(HAS_TABLE), {"name": db.sql("{s}.migrations").decode()}).fetchone()
            if exists != (True,):
                connection.execute(db.sql(_PREPARE))
            version = current_version(connection, db)
            for migration in migrations():
                if migration.version > version:
                    connection.execute(db.sql(migration.text))
                    connection.execute(
                        db.sql(_RECORD),
                        {"version": migration.version, "min_compatible": migration.min_compatible_version},
                    )
    except psycopg.errors.InsufficientPrivilege as error:
        raise RightsError(
            "this database user may not create or migrate the authsync schema",
            hint="let an administrator run the output of: authsync init --print-sql",
        ) from error
    return SCHEMA_VERSION if version < SCHEMA_VERSION else None


def require(connection: Connection, db: Database) -> None:
    """Check that the schema is there, without changing anything.

    Raises:
        MissingSchemaError: it is not.
    """
    if current_version(connection, db) == 0:
        raise MissingSchemaError("the database has no authsync tables", hint="run: authsync init")
