"""The settings: what values mean, which are refused, the rules between them, and no password in what is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from authsync.config import (
    RunSettings,
    Settings,
    check_database_url,
    check_session_id,
    default_stop_timeout_s,
    has_password,
    parse_duration,
    parse_moment,
    parse_size,
    without_password,
)
from authsync.core.lifecycle import MIN_DRAIN_S, Limits
from authsync.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("10s", 10.0),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        ("0s", 0.0),
        (" 5s ", 5.0),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    """Durations carry their units."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1 h", "1h 30m", "1w", "1.s", "ten seconds", "1h-30m", "1e3s"])
def test_no_duration(text: str) -> None:
    """A number without a unit, or anything else, is refused with an example of what is meant."""
    with pytest.raises(ValueError, match="250ms, 10s, 2m or 1h"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2h", timedelta(hours=2)),
        ("2026-11-18T12:30:00+02:00", datetime(2026, 11, 18, 10, 30, tzinfo=UTC)),
        ("2026-11-18T12:30:00Z", datetime(2026, 11, 18, 12, 30, tzinfo=UTC)),
        ("2026-11-18 12:30", datetime(2026, 11, 18, 12, 30, tzinfo=UTC)),
        ("2026-11-18", datetime(2026, 11, 18, tzinfo=UTC)),
    ],
)
def test_moment(text: str, moment: datetime | timedelta) -> None:
    """A moment is so long ago, or an ISO time; one without a zone is UTC."""
    assert parse_moment(text) == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "12:30", "2", "999999999999d"])
def test_no_moment(text: str) -> None:
    """Anything else is refused, a time before all times too."""
    with pytest.raises(ValueError, match=r"\S"):
        parse_moment(text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("16MiB", 16 << 20),
        ("512KiB", 512 << 10),
        ("1GiB", 1 << 30),
        ("4096", 4096),
        ("1 mib", 1 << 20),
        ("0", 0),
        ("7B", 7),
        ("2K", 2048),
        ("2M", 2 << 20),
        ("2G", 2 << 30),
    ],
)
def test_size(text: str, size_bytes: int) -> None:
    """Sizes are in bytes, or carry their units."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "MiB", "-1", "1.5MiB", "1XB", "16 Mi B"])
def test_no_size(text: str) -> None:
    """Anything else is refused with an example of what is meant."""
    with pytest.raises(ValueError, match="16MiB"):
        parse_size(text)


@pytest.mark.parametrize("text", ["default", "user 17", "ü/😀", "x" * 100, "../x", "5511987654321"])
def test_session_id(text: str) -> None:
    """Any name of up to 100 characters may be a session's."""
    assert check_session_id(text) == text


@pytest.mark.parametrize("text", ["", "x" * 101, "a\nb", "a\0b", "a\x1b[31m", "a\u200bb"], ids=ascii)
def test_no_session_id(text: str) -> None:
    """Nothing, too much, and what a terminal would obey or hide, are refused."""
    with pytest.raises(ValueError, match="session id"):
        check_session_id(text)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:secret@host:5432/name",
        "postgres://user@host/name?sslmode=require",
        "postgresql:///name?host=/run/postgresql",
        "postgresql://user:secret@one:5432,two:5432/name?target_session_attrs=read-write",
        "postgresql://user:secret@[::1]:5432/name",
        "host=localhost dbname=name user=user password=secret",
        "host=localhost password='two words'",
        "embedded:",
        "embedded:///var/lib/authsync",
    ],
)
def test_database_url(url: str) -> None:
    """A PostgreSQL URL, one with several hosts, a connection string, and the embedded server are taken as they are."""
    assert check_database_url(url) == url


@pytest.mark.parametrize("url", [None, "", "  "])
def test_no_database_url(url: str | None) -> None:
    """Without a URL the error, 78, says what to set, on Railway too."""
    with pytest.raises(ConfigError) as caught:
        check_database_url(url)
    assert caught.value.exit_code == 78
    assert "DATABASE_URL=${{Postgres.DATABASE_URL}}" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["mysql://user:secret@host/name", "sqlite:///x.db", "${{Postgres.DATABASE_URL}}", "localhost:5432", "secret"]
)
def test_other_url(url: str) -> None:
    """What is no PostgreSQL URL is refused with 78, and its password is not repeated."""
    with pytest.raises(ConfigError) as caught:
        check_database_url(url)
    assert caught.value.exit_code == 78
    assert "secret" not in str(caught.value)
    assert "mysql" in str(caught.value) or not url.startswith("mysql")
    assert "postgresql://" in caught.value.hint


def test_unescaped_password() -> None:
    """An at sign in a password makes libpq take the rest of it for a host, and name that: refused, with what to do."""
    with pytest.raises(ConfigError) as caught:
        check_database_url("postgresql://user:SECRET@SECRET@host/name")
    assert "SECRET" not in f"{caught.value} {caught.value.hint}"
    assert "%40" in caught.value.hint


PASSWORDS = [
    pytest.param("postgresql://user:SECRET@host/name", id="URL"),
    pytest.param("postgres://user:SECRET@host:5432/name?sslmode=require", id="URL with options"),
    pytest.param("postgresql+psycopg://user:SECRET@host/name", id="URL of a driver"),
    pytest.param("POSTGRESQL://user:SECRET@host/name", id="URL in capitals"),
    pytest.param("postgresql://:SECRET@host/name", id="URL without user"),
    pytest.param("postgresql://user:SECRET/SECRET@host/name", id="slash in the password"),
    pytest.param("postgresql://user:SECRET@SECRET@host/name", id="at sign in the password"),
    pytest.param("postgresql://user:SECRET:SECRET@host/name", id="colon in the password"),
    pytest.param("postgresql://user:SECRET%40@host/name", id="escaped at sign"),
    pytest.param("postgresql://user@host/name?password=SECRET", id="option"),
    pytest.param("postgresql://user@host/name?password=SECRET&sslmode=require", id="option before others"),
    pytest.param("host=host password=SECRET dbname=name", id="connection string"),
    pytest.param("host=host PASSWORD=SECRET", id="connection string in capitals"),
    pytest.param("host=host password = SECRET dbname=name", id="blanks around the sign"),
    pytest.param("host=host password='SECRET SECRET' dbname=name", id="quoted with blanks"),
    pytest.param(r"host=host password='SECRET \'SECRET' dbname=name", id="quoted with a quote"),
    pytest.param(r"host=host password=SECRET\ SECRET dbname=name", id="escaped blank"),
    pytest.param("host=host sslpassword=SECRET", id="password of the key"),
]


@pytest.mark.parametrize("url", PASSWORDS)
def test_without_password(url: str) -> None:
    """No part of a password is in what is shown, however it is written; the host still is."""
    shown = without_password(url)
    assert "SECRET" not in shown
    assert "host" in shown
    assert has_password(url)


@pytest.mark.parametrize(
    "url", ["postgresql://user@host/name", "postgresql://host:5432/name", "host=h dbname=d", "embedded:", "off"]
)
def test_no_password(url: str) -> None:
    """A URL without a password is shown as it is, and is no reason to warn."""
    assert without_password(url) == url
    assert not has_password(url)


@pytest.mark.parametrize(
    ("grace_s", "stop_timeout_s"), [(30.0, 18.0), (10.0, 6.0), (5.0, 3.0), (None, 6.0), (0.0, 6.0)]
)
def test_stop_timeout(grace_s: float | None, stop_timeout_s: float) -> None:
    """The bot gets 60 % of the platform's grace, or 6 s where that says nothing."""
    assert default_stop_timeout_s(grace_s) == pytest.approx(stop_timeout_s)


def run_settings(
    *,
    debounce_s: float = 0.05,
    max_delay_s: float = 0.25,
    interval_s: float = 120.0,
    stop_timeout_s: float = 6.0,
    grace_s: float = 10.0,
) -> RunSettings:
    """Settings of a run."""
    return RunSettings(
        database_url="postgresql://user:SECRET@host/name",
        directory=Path("auth_info"),
        scope="local",
        debounce_s=debounce_s,
        max_delay_s=max_delay_s,
        interval_s=interval_s,
        stop_timeout_s=stop_timeout_s,
        grace_s=grace_s,
    )


def test_defaults() -> None:
    """The defaults are the documented ones, and agree with each other."""
    settings = run_settings()
    assert (settings.session_id, settings.schema, settings.max_file_size_bytes) == ("default", "authsync", 16 << 20)
    assert (settings.start_timeout_s, settings.on_restore_failure, settings.takeover) == (900.0, "fail", "auto")
    assert settings.require_session is False
    assert settings.budget_s == 30.0
    assert RunSettings(database_url="", directory=Path(), scope="") == RunSettings(
        database_url="", directory=Path(), scope="", debounce_s=0.05, max_delay_s=0.25, interval_s=120.0
    )


@pytest.mark.parametrize(
    ("debounce_s", "max_delay_s", "interval_s", "named"),
    [
        pytest.param(0.3, 0.25, 120.0, ("--debounce", "--max-delay"), id="debounce over max-delay"),
        pytest.param(0.05, 10.0, 5.0, ("--interval", "--max-delay"), id="interval under max-delay"),
    ],
)
def test_contradiction(debounce_s: float, max_delay_s: float, interval_s: float, named: tuple[str, str]) -> None:
    """Times that contradict each other are refused with 78, by their names."""
    with pytest.raises(ConfigError) as caught:
        run_settings(debounce_s=debounce_s, max_delay_s=max_delay_s, interval_s=interval_s)
    assert caught.value.exit_code == 78
    assert all(option in str(caught.value) for option in named)
    assert caught.value.hint


def test_same_times() -> None:
    """Equal times do not contradict each other."""
    assert run_settings(debounce_s=1.0, max_delay_s=1.0, interval_s=1.0).interval_s == 1.0


@pytest.mark.parametrize(
    ("stop_timeout_s", "grace_s", "expected_s"),
    [
        pytest.param(6.0, 10.0, 10.0, id="fits"),
        pytest.param(8.0, 10.0, 10.0, id="just fits"),
        pytest.param(9.0, 10.0, 9.0 + MIN_DRAIN_S, id="leaves too little"),
        pytest.param(60.0, 10.0, 60.0 + MIN_DRAIN_S, id="longer than the grace"),
    ],
)
def test_limits(stop_timeout_s: float, grace_s: float, expected_s: float) -> None:
    """The last flush gets its share even where the child's takes all of the grace."""
    limits = run_settings(stop_timeout_s=stop_timeout_s, grace_s=grace_s).limits
    assert limits == Limits(stop_timeout_s=stop_timeout_s, grace_s=expected_s)


def test_hidden() -> None:
    """The database URL is in no repr, which ends in logs."""
    assert "SECRET" not in repr(run_settings())
    assert "SECRET" not in repr(
        Settings(database_url="postgresql://user:SECRET@host/name", directory=Path("auth_info"), scope="local")
    )
