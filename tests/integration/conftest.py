"""A database with the schema for each test, copied from one that is made once."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict

from authsync.store import schema
from authsync.store.connection import Database
from tests.integration.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.postgres import TestServer


@pytest.fixture(scope="session")
def template(server: TestServer) -> str:
    """The name of a database that holds the schema and nothing else; nobody is connected to it."""
    dsn = server.create_database()
    db = Database(dsn, "authsync")
    db.call(lambda connection: schema.ensure(connection, db))
    db.close()
    return str(conninfo_to_dict(dsn)["dbname"])


@pytest.fixture
def world(server: TestServer, template: str, tmp_path: Path) -> Iterator[World]:
    """A fresh database with the schema, and an empty place for folders."""
    server.start()
    dsn = server.create_database(template)
    with contextlib.ExitStack() as stack:
        yield World(dsn, tmp_path, stack)
    server.start()
    server.drop_database(dsn)
