"""Fixtures that all tests share; each stands for a real thing, none for a mock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.postgres import TestServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server() -> Iterator[TestServer]:
    """One PostgreSQL per test process. A test may stop or kill it: who needs it next starts it again."""
    with TestServer() as running:
        yield running


@pytest.fixture
def dsn(server: TestServer) -> Iterator[str]:
    """A fresh, empty database."""
    server.start()
    made = server.create_database()
    yield made
    server.start()
    server.drop_database(made)
