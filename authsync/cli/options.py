"""The options that commands share, and how they become settings. Every option has a variable ``AUTHSYNC_<OPTION>``."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from authsync import config
from authsync.core.names import NameRules
from authsync.core.retention import parse_keep
from authsync.errors import ConfigError, UsageError

F = TypeVar("F", bound=Callable[..., Any])

LOG_LEVELS = ("debug", "info", "warning", "error")


class _Parsed(click.ParamType[Any]):
    """A value that one of ``config``'s functions reads."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = _Parsed("duration", config.parse_duration)
SIZE = _Parsed("size", config.parse_size)
SESSION_ID = _Parsed("text", config.check_session_id)
KEEP = _Parsed("policy", parse_keep)
MOMENT = _Parsed("time", config.parse_moment)


def option(flag: str, *more: str, **attributes: Any) -> Callable[[F], F]:  # noqa: ANN401 - click's own
    """A click option that also reads ``AUTHSYNC_<OPTION>`` and shows that in its help."""
    variable = "AUTHSYNC_" + flag.split("/", maxsplit=1)[0].lstrip("-").replace("-", "_").upper()
    attributes.setdefault("envvar", variable)
    attributes.setdefault("show_envvar", True)
    attributes.setdefault("show_default", attributes.get("default") is not None)
    return click.option(flag, *more, **attributes)


_COMMON = (
    option(
        "--database-url",
        envvar=["AUTHSYNC_DATABASE_URL", "DATABASE_URL"],
        help="PostgreSQL URL; embedded: starts one here, off runs the bot alone.",
    ),
    option("--database-url-file", type=click.Path(dir_okay=False), help="File that holds the URL."),
    option("--dir", "directory", default="auth_info", type=click.Path(file_okay=False), help="The bot's folder."),
    option("--session-id", default="default", type=SESSION_ID, help="Name of the session in the database."),
    option("--schema", default="authsync", help="Schema of the tables."),
    option("--scope", help="The service that the session belongs to; read from the platform's variables."),
    option("--deployment", help="The deployment; read from the platform's variables."),
    option("--ignore", multiple=True, metavar="GLOB", help="Paths not to store; may be repeated."),
    option("--max-file-size", default="16MiB", type=SIZE, help="Larger files are not stored; a warning names them."),
    option(
        "--log-format",
        default="auto",
        type=click.Choice(["auto", "console", "json"]),
        help="auto: JSON unless stderr is a terminal.",
    ),
    option("--log-level", default="info", type=click.Choice(LOG_LEVELS), help="debug also prints tracebacks."),
    option("--lang", default="en", type=click.Choice(["en", "pt"]), help="Language of the messages."),
)

_SUPERVISING = (
    option("--debounce", default="50ms", type=DURATION, help="Quiet period before a flush."),
    option("--max-delay", default="250ms", type=DURATION, help="A constant writer is flushed this often."),
    option("--interval", default="2m", type=DURATION, help="Full scan this often."),
    option("--stop-timeout", type=DURATION, help="SIGTERM to SIGKILL of the bot. [default: 60% of the grace, else 6s]"),
    option(
        "--grace",
        type=DURATION,
        help="The platform's time from SIGTERM to SIGKILL. [default: the platform's, else 10s]",
    ),
    option("--start-timeout", default="15m", type=DURATION, help="How long to wait for the database at start."),
    option(
        "--on-restore-failure",
        default="fail",
        type=click.Choice(["fail", "fresh", "local"]),
        help="Stored data is damaged: fail (65), start fresh, or start on a local folder with a valid marker.",
    ),
    option("--require-session", is_flag=True, show_default=False, help="Nothing stored is an error (78)."),
    option(
        "--takeover",
        default="auto",
        type=click.Choice(["auto", "never", "force"]),
        help="force takes the session at once, and moves it to this scope.",
    ),
    option("--keep", default="last=8,hourly=24,daily=7", type=KEEP, help="Which snapshots are kept."),
)


def common(command: F) -> F:
    """Add the options of every command."""
    for decorate in reversed(_COMMON):
        command = decorate(command)
    return command


def supervising(command: F) -> F:
    """Add the options of ``run`` and ``watch``."""
    for decorate in reversed(_SUPERVISING):
        command = decorate(command)
    return common(command)


def settings(ctx: click.Context) -> config.Settings:
    """The settings of a one-shot command; sets the log up.

    Raises:
        ConfigError: no database URL, or one that cannot be.
    """
    return config.Settings(**_common_fields(ctx))


def run_settings(ctx: click.Context, command: tuple[str, ...]) -> config.RunSettings:
    """The settings of ``run`` and ``watch``."""
    from authsync.platform import detect  # noqa: PLC0415 - as the database below: not for --help

    values = ctx.params
    platform = detect(os.environ)
    grace_s = values["grace"] or platform.grace_s
    stop_timeout_s = values["stop_timeout"]
    return config.RunSettings(
        **_common_fields(ctx),
        command=command,
        debounce_s=values["debounce"],
        max_delay_s=values["max_delay"],
        interval_s=values["interval"],
        stop_timeout_s=config.default_stop_timeout_s(grace_s) if stop_timeout_s is None else stop_timeout_s,
        grace_s=grace_s or config.DEFAULT_GRACE_S,
        start_timeout_s=values["start_timeout"],
        on_restore_failure=values["on_restore_failure"],
        require_session=values["require_session"],
        takeover=values["takeover"],
        keep=values["keep"],
    )


def _common_fields(ctx: click.Context) -> dict[str, Any]:
    from authsync.platform import detect  # noqa: PLC0415 - not for --help

    values = ctx.params
    platform = detect(os.environ)
    return {
        "database_url": database_url(ctx),
        "directory": Path(values["directory"]),
        "session_id": values["session_id"],
        "schema": values["schema"],
        "scope": values["scope"] or platform.scope,
        "deployment": values["deployment"] or platform.deployment,
        "names": NameRules(ignore=tuple(values["ignore"])),
        "max_file_size_bytes": values["max_file_size"],
    }


def given_url(ctx: click.Context) -> str | None:
    """The database URL, out of a flag, a file or a variable.

    Raises:
        ConfigError: its file cannot be read.
    """
    url, file = ctx.params["database_url"], ctx.params["database_url_file"]
    if file is None or ctx.get_parameter_source("database_url") is ParameterSource.COMMANDLINE:
        return url if isinstance(url, str) else None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(
            f"the database URL's file cannot be read: {error.strerror}", hint=f"check --database-url-file {file}"
        ) from error


def database_url(ctx: click.Context) -> str:
    """The database URL of a command that needs a database.

    Raises:
        ConfigError: there is none, or it cannot be one.
    """
    from authsync import log  # noqa: PLC0415 - structlog: not for --help

    url = given_url(ctx)
    from_flag = ctx.get_parameter_source("database_url") is ParameterSource.COMMANDLINE
    if url is not None and from_flag and config.has_password(url):
        log.get().warning("password_visible")
    if url == config.OFF:
        raise ConfigError(
            "the database URL is off: only `authsync run` works without a database",
            hint="set DATABASE_URL for this command",
        )
    return config.check_database_url(url)


def set_log_up(ctx: click.Context) -> None:
    """Configure the log as the options say."""
    from authsync import log  # noqa: PLC0415 - structlog: not for --help

    values = ctx.params
    log.configure(fmt=values["log_format"], level=values["log_level"], language=values["lang"])


def wants_traceback(arguments: list[str]) -> bool:
    """Whether ``--log-level debug`` is set, also where the command line could not be read."""
    return (
        os.environ.get("AUTHSYNC_LOG_LEVEL") == "debug"
        or "--log-level=debug" in arguments
        or any(pair == ("--log-level", "debug") for pair in pairwise(arguments))
    )


def usage(message: str, *, hint: str) -> UsageError:
    """An error of the command line."""
    return UsageError(message, hint=hint)
