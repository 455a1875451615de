"""The settings of a command, frozen, with all rules between them. Values come from flags and variables."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from authsync.core.names import NameRules
from authsync.core.retention import KeepPolicy
from authsync.errors import ConfigError

if TYPE_CHECKING:
    from authsync.core.lifecycle import Limits

DEFAULT_GRACE_S = 10.0
"""Docker's; platforms that say nothing about theirs get it."""
DEFAULT_STOP_TIMEOUT_S = 6.0
STOP_SHARE = 0.6
"""Of the platform's grace, for the child; the rest is for the last flush."""
MAX_SESSION_ID_LENGTH = 100
"""As in the table of the system that authsync replaces."""
OFF = "off"
"""A database URL that runs the child alone."""

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SIZES = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"(\d+)\s*([A-Za-z]*)")
_PASSWORD = re.compile(
    r"(?P<before>[a-z]+://[^:/@]*:)\S*@|password\s*=\s*(?:'(?:[^'\\]|\\.)*'?|(?:\\.|[^\s\\])*)", re.IGNORECASE
)
_URL = re.compile(r"postgres(?:ql)?://(?:[^/?#@]*@)?(?P<hosts>[^/?#]*)")
_HOST = re.compile(r"(?:\[[^\]]*\]|[^:@]*)(?::\d*)?")
_CONNINFO = re.compile(r"\s*\w+\s*=")  # the rest is libpq's to judge


def parse_duration(text: str) -> float:
    """Seconds in ``250ms``, ``10s``, ``2m``, ``1h`` or ``1h30m``.

    Raises:
        ValueError: anything else.
    """
    parts = _DURATION.findall(text.strip())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise ValueError(f"{text!r} is not a duration like 250ms, 10s, 2m or 1h")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def parse_moment(text: str) -> datetime | timedelta:
    """``2h`` (so long ago) or an ISO time; one without a zone is UTC.

    Raises:
        ValueError: anything else.
    """
    try:
        return timedelta(seconds=parse_duration(text))
    except OverflowError as error:
        raise ValueError(f"{text!r} is longer ago than anything") from error
    except ValueError:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def parse_size(text: str) -> int:
    """Bytes in ``16MiB``, ``512KiB`` or a plain number.

    Raises:
        ValueError: anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None or match[2].upper() not in _SIZES:
        raise ValueError(f"{text!r} is not a size like 16MiB")
    return int(match[1]) * _SIZES[match[2].upper()]


def check_session_id(text: str) -> str:
    """``text`` if it may name a session.

    Raises:
        ValueError: it is empty, over 100 characters, or holds control characters.
    """
    if not text:
        raise ValueError("a session id is never empty")
    if len(text) > MAX_SESSION_ID_LENGTH:
        raise ValueError(f"a session id has at most {MAX_SESSION_ID_LENGTH} characters, this one has {len(text)}")
    if any(unicodedata.category(char).startswith("C") for char in text):
        raise ValueError("a session id holds no control characters")
    return text


def check_database_url(url: str | None) -> str:
    """``url`` if it can be one.

    Raises:
        ConfigError: it is missing or of another kind; the hint says what to set.
    """
    if url is None or not url.strip():
        raise ConfigError(
            "there is no database URL",
            hint="set DATABASE_URL (on Railway: DATABASE_URL=${{Postgres.DATABASE_URL}}), "
            "or DATABASE_URL=embedded: to try authsync out",
        )
    if url.startswith("embedded:") or _CONNINFO.match(url):
        return url
    hosts = _URL.match(url)
    if hosts is not None and all(_HOST.fullmatch(host) for host in hosts["hosts"].split(",")):
        return url
    raise ConfigError(
        f"the database URL is none of PostgreSQL ({url[:12].partition('://')[0]}…)"
        if "://" in url[:12]
        else "the database URL is no URL",
        hint="set DATABASE_URL to postgresql://USER:PASSWORD@HOST:5432/DATABASE (an @ in the password is %40), "
        "or to embedded:",
    )


def without_password(url: str) -> str:
    """``url`` as it may be shown."""
    return _PASSWORD.sub(lambda found: f"{found['before']}***@" if found["before"] else "password=***", url)


def has_password(url: str) -> bool:
    """Whether ``url`` carries a password (one on a command line is readable by every user of the machine)."""
    return without_password(url) != url


def default_stop_timeout_s(grace_s: float | None) -> float:
    """60 % of the platform's grace, or 6 s where it does not say."""
    return grace_s * STOP_SHARE if grace_s else DEFAULT_STOP_TIMEOUT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every command needs."""

    database_url: str = field(repr=False)
    directory: Path
    session_id: str = "default"
    schema: str = "authsync"
    scope: str
    """The service that the session belongs to."""
    deployment: str | None = None
    names: NameRules = field(default_factory=NameRules)
    max_file_size_bytes: int = 16 << 20
    budget_s: float = 30.0
    """How long a one-shot command waits for the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings(Settings):
    """What ``run`` and ``watch`` need besides."""

    command: tuple[str, ...] = ()
    """Empty for ``watch``."""
    debounce_s: float = 0.05
    max_delay_s: float = 0.25
    interval_s: float = 120.0
    stop_timeout_s: float = DEFAULT_STOP_TIMEOUT_S
    grace_s: float = DEFAULT_GRACE_S
    start_timeout_s: float = 900.0
    on_restore_failure: str = "fail"
    require_session: bool = False
    takeover: str = "auto"
    keep: KeepPolicy = field(default_factory=KeepPolicy)

    def __post_init__(self) -> None:
        if self.debounce_s > self.max_delay_s:
            raise ConfigError(
                f"--debounce ({self.debounce_s:g}s) is longer than --max-delay ({self.max_delay_s:g}s)",
                hint="a constant writer is flushed every --max-delay: make it the longer one",
            )
        if self.interval_s < self.max_delay_s:
            raise ConfigError(
                f"--interval ({self.interval_s:g}s) is shorter than --max-delay ({self.max_delay_s:g}s)",
                hint="a full scan costs more than a flush: make --interval the longer one (2m is the default)",
            )

    @property
    def limits(self) -> Limits:
        """The budgets of a stop; the last flush gets its share even where the child's takes all of the grace."""
        from authsync.core.lifecycle import MIN_DRAIN_S, Limits  # noqa: PLC0415 - `run`'s alone, and 5 % of a restore

        return Limits(stop_timeout_s=self.stop_timeout_s, grace_s=max(self.grace_s, self.stop_timeout_s + MIN_DRAIN_S))
