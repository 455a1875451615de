"""The command line's options: each has a variable, flags win, and the platform fills in what nobody set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import click
import pytest

from authsync import config
from authsync.cli import main, options
from authsync.core.retention import KeepPolicy
from authsync.errors import ConfigError

URL = "postgresql://user@host/name"


def commands(group: click.Group = main.authsync, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """All commands, those of groups too."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands())


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine's own environment."""
    monkeypatch.setattr("os.environ", {})


def run_settings(
    *flags: str, env: Mapping[str, str] | None = None, monkeypatch: pytest.MonkeyPatch
) -> config.RunSettings:
    """The settings of ``authsync run`` with these flags and variables."""
    monkeypatch.setattr("os.environ", dict(env or {}))
    with COMMANDS["run"].make_context("run", [*flags, "--", "node"]) as ctx:
        return options.run_settings(ctx, ("node",))


@pytest.mark.parametrize("name", COMMANDS)
def test_variables(name: str) -> None:
    """Every option of every command has a variable AUTHSYNC_<OPTION>."""
    for parameter in COMMANDS[name].params:
        if isinstance(parameter, click.Option):
            flag = max(parameter.opts, key=len)
            names = [parameter.envvar] if isinstance(parameter.envvar, str) else list(parameter.envvar or ())
            assert "AUTHSYNC_" + flag.lstrip("-").replace("-", "_").upper() in names
            assert parameter.help, f"{flag} says nothing of itself"


@pytest.mark.parametrize("name", COMMANDS)
def test_examples(name: str) -> None:
    """The help of each command says what it does and has examples that begin with it."""
    command = COMMANDS[name]
    text = command.get_help(click.Context(command, info_name=name))
    assert command.help
    assert "Examples:" in text
    assert f"authsync {name}" in text.split("Examples:")[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_common(name: str) -> None:
    """Every command has the common options."""
    flags = {flag for parameter in COMMANDS[name].params for flag in parameter.opts}
    assert flags >= {"--database-url", "--database-url-file", "--dir", "--session-id", "--log-format", "--log-level"}
    assert "--lang" in flags


@pytest.mark.parametrize("name", ["run", "watch"])
def test_defaults(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without flags the values are the documented ones."""
    monkeypatch.setattr("os.environ", {"DATABASE_URL": URL})
    with COMMANDS[name].make_context(name, []) as ctx:
        settings = options.run_settings(ctx, ())
    assert settings == config.RunSettings(
        database_url=URL,
        directory=Path("auth_info"),
        session_id="default",
        scope="local",
        debounce_s=0.05,
        max_delay_s=0.25,
        interval_s=120.0,
        stop_timeout_s=6.0,
        grace_s=10.0,
        start_timeout_s=900.0,
        on_restore_failure="fail",
        require_session=False,
        takeover="auto",
        keep=KeepPolicy(last=8, periods=(("hourly", 24), ("daily", 7))),
        max_file_size_bytes=16 << 20,
    )


def test_flags_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable sets an option, and a flag wins over it."""
    env = {
        "AUTHSYNC_DATABASE_URL": URL,
        "AUTHSYNC_DIR": "sessions",
        "AUTHSYNC_SESSION_ID": "one",
        "AUTHSYNC_DEBOUNCE": "10ms",
        "AUTHSYNC_REQUIRE_SESSION": "1",
        "AUTHSYNC_IGNORE": "*.log media/*",
        "AUTHSYNC_KEEP": "last=3",
    }
    settings = run_settings("--session-id", "two", env=env, monkeypatch=monkeypatch)
    assert (settings.directory, settings.session_id, settings.debounce_s) == (Path("sessions"), "two", 0.01)
    assert settings.require_session
    assert not settings.names.belongs("x.log")
    assert not settings.names.belongs("media/x")
    assert settings.keep == KeepPolicy(last=3, periods=())


def test_which_url(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Our own variable wins over DATABASE_URL, a file over both, and a flag over all."""
    file = tmp_path / "url"
    file.write_text("postgresql://user@file/name\n")
    env = {"DATABASE_URL": "postgresql://user@general/name"}
    assert run_settings(env=env, monkeypatch=monkeypatch).database_url == "postgresql://user@general/name"
    env["AUTHSYNC_DATABASE_URL"] = "postgresql://user@ours/name"
    assert run_settings(env=env, monkeypatch=monkeypatch).database_url == "postgresql://user@ours/name"
    env["AUTHSYNC_DATABASE_URL_FILE"] = str(file)
    assert run_settings(env=env, monkeypatch=monkeypatch).database_url == "postgresql://user@file/name"
    flag = ("--database-url", "postgresql://user@flag/name")
    assert run_settings(*flag, env=env, monkeypatch=monkeypatch).database_url == "postgresql://user@flag/name"


def test_url_file_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file that cannot be read is an error of the configuration, not a reason to use another database."""
    env = {"DATABASE_URL": URL, "AUTHSYNC_DATABASE_URL_FILE": str(tmp_path / "none")}
    with pytest.raises(ConfigError, match="cannot be read"):
        run_settings(env=env, monkeypatch=monkeypatch)


def test_password_on_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A password on the command line, which every user of the machine can read, gets a warning without it."""
    run_settings("--database-url", "postgresql://user:SECRET@host/name", monkeypatch=monkeypatch)
    said = "".join(capsys.readouterr())
    assert "password" in said
    assert "SECRET" not in said
    run_settings(env={"DATABASE_URL": "postgresql://user:SECRET@host/name"}, monkeypatch=monkeypatch)
    assert "".join(capsys.readouterr()) == ""


def test_platform_fills_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scope, deployment and grace are the platform's, unless an option says otherwise."""
    env = {"DATABASE_URL": URL, "FLY_APP_NAME": "bot", "FLY_MACHINE_VERSION": "v7"}
    settings = run_settings(env=env, monkeypatch=monkeypatch)
    assert (settings.scope, settings.deployment) == ("fly:bot", "v7")
    assert (settings.grace_s, settings.stop_timeout_s) == (5.0, 3.0)
    flags = ("--scope", "mine", "--deployment", "d1", "--grace", "20s")
    settings = run_settings(*flags, env=env, monkeypatch=monkeypatch)
    assert (settings.scope, settings.deployment) == ("mine", "d1")
    assert (settings.grace_s, settings.stop_timeout_s) == (20.0, 12.0)
    assert run_settings("--stop-timeout", "1s", env=env, monkeypatch=monkeypatch).stop_timeout_s == 1.0


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--debounce", "50"),
        ("--max-file-size", "big"),
        ("--session-id", ""),
        ("--keep", "last"),
        ("--takeover", "maybe"),
        ("--on-restore-failure", "ignore"),
        ("--lang", "de"),
    ],
)
def test_refused(flag: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value that an option does not take is an error of the command line that names the option."""
    with pytest.raises(click.UsageError) as caught:
        run_settings(flag, value, env={"DATABASE_URL": URL}, monkeypatch=monkeypatch)
    assert flag in caught.value.format_message()


def test_command_untouched() -> None:
    """The words of the bot's own command are no options of ours, with or without ``--``."""
    for words in (["node", "--lang", "x"], ["--", "node", "--lang", "x"]):
        with COMMANDS["run"].make_context("run", list(words)) as ctx:
            assert ctx.params["command"] == ("node", "--lang", "x")
            assert ctx.params["lang"] == "en"
