"""The README says what the program does: its tables are the program's, and its commands can be typed."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
import psycopg
import pytest
from psycopg import conninfo, sql

from authsync import errors, messages
from authsync.cli.main import authsync
from tests.support.run import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.acceptance.conftest import Starter

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")
_TABLES_OF = {  # a command's options stand in the first table and in those of its own
    "run": ("Of `run` and `watch`",),
    "watch": ("Of `run` and `watch`",),
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option, as far as the README repeats the program."""

    flags: tuple[str, ...]
    variables: tuple[str, ...]
    default: str | None


def blocks(*languages: str) -> list[str]:
    """The README's fenced blocks in these languages."""
    return [text for language, text in _FENCE.findall(README) if language in languages]


def section(heading: str) -> str:
    """The text below a heading, up to the next heading of its level or above."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", README, re.MULTILINE)
    assert found is not None, f"the README has no section {heading!r}"
    level = len(found[1])
    return re.split(rf"^#{{1,{level}}} ", README[found.end() :], maxsplit=1, flags=re.MULTILINE)[0]


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    lines = section(heading).splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table: list[list[str]] = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip().strip("|").split("|")])
    assert len({len(row) for row in table}) == 1, f"a row of {heading!r} has too many or too few cells"
    return table[2:]


def codes(heading: str) -> list[str]:
    """The first column of a table, each cell being one piece of code."""
    found = [_CODE.findall(row[0]) for row in rows(heading)]
    assert all(len(cell) == 1 for cell in found)
    return [cell[0] for cell in found]


def documented(heading: str) -> list[Option]:
    """The options in a table."""
    return [
        Option(tuple(_CODE.findall(flags)), tuple(_CODE.findall(variables)), next(iter(_CODE.findall(default)), None))
        for flags, variables, default, _ in rows(heading)
    ]


def grants() -> str:
    """The rights that a role needs."""
    return next(text for text in blocks("sql") if "GRANT" in text)


def existing(command: click.Command) -> list[Option]:
    """The options that a command has."""
    found = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            info = parameter.to_info_dict()
            variables = info["envvar"]
            found.append(
                Option(
                    flags=tuple(info["opts"]),
                    variables=(variables,) if isinstance(variables, str) else tuple(variables),
                    default=None if info["default"] in {None, False} else str(info["default"]),
                )
            )
    return found


def fields_of(value: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """The names of an object's fields, those of the objects in it after a dot; families are data."""
    for name, inner in value.items():
        yield prefix + name
        for item in inner if isinstance(inner, list) else [inner]:
            if isinstance(item, dict) and name != "families":
                yield from fields_of(item, f"{prefix}{name}.")


@pytest.mark.parametrize("name", sorted(authsync.commands))
def test_options(name: str) -> None:
    """Flags, variables and defaults of a command's options are those of its tables, in the order of its help."""
    own = _TABLES_OF.get(name, (f"Of `{name}`",))
    told = [option for heading in ("Of every command", *own) for option in documented(heading)]
    assert told == existing(authsync.commands[name])


def test_commands() -> None:
    """The table of commands holds all commands, and no other."""
    assert sorted(code.split()[1] for code in codes("Commands")) == sorted(authsync.commands)


def test_exit_codes() -> None:
    """The exit codes are those of the errors."""
    kinds = [errors.AuthsyncError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    assert [int(row[0]) for row in rows("Exit codes")] == sorted({kind.exit_code for kind in kinds})


def test_events() -> None:
    """The events are those of the catalogue."""
    assert sorted(codes("Log events")) == sorted(messages.MESSAGES)


def test_modules() -> None:
    """Each module has its line; packages need none."""
    package = REPOSITORY / "authsync"
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py") if path.name != "__init__.py"}
    told = [code for code in codes("Development") if code.endswith(".py")]
    assert sorted(told) == sorted(modules)


def test_tables(start: Starter) -> None:
    """The tables of the database, and the least rights on them, are those that --print-sql prints."""
    code, printed = start.once("init", "--print-sql", url="")
    assert code == 0
    made = printed.stdout.replace('"authsync"', "authsync")
    tables = re.findall(r"^CREATE TABLE (?:IF NOT EXISTS )?authsync\.(\w+)", made, re.MULTILINE)
    assert sorted(codes("The database")) == sorted(tables)
    assert grants().splitlines() == re.findall(r"^-- (GRANT .*;)$", made, re.MULTILINE)


def test_commands_parse() -> None:
    """A shell can read each block of commands."""
    found = blocks("sh")
    assert len(found) >= 4
    for text in found:
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, check=False, text=True, timeout=10)
        assert (done.returncode, done.stderr) == (0, ""), text


def test_first_command() -> None:
    """The first block is the command that .ci/run executes; that one names a place for the database, and a time."""
    executed = re.search(r"DATABASE_URL=\S+ (.+?)\)$", (REPOSITORY / ".ci/run").read_text(), re.MULTILINE)
    assert executed is not None
    url, *words = shlex.split(_FENCE.findall(README)[0][1])
    assert url == "DATABASE_URL=embedded:"
    assert shlex.split(executed[0])[0].startswith(url)
    assert [*words, "--seconds", "3"] == shlex.split(executed[1])


def test_links() -> None:
    """Links into the README and to files lead somewhere."""
    headings = re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\((?!https:)([^)]+)\)", README):
        assert target[1:] in anchors if target.startswith("#") else (REPOSITORY / target).exists(), target


def test_status_fields(start: Starter) -> None:
    """The fields of status --json are those of its table."""
    code, _ = start.once("run", "--", "sh", "-c", "echo '{}' > auth_info/creds.json; sleep 1")
    assert code == 0
    code, ended = start.once("status", "--json")
    assert code == 0
    told = set(codes("status --json"))
    assert set(fields_of(json.loads(ended.stdout))) == {field for field in told if not field.startswith("owner.")}

    running = start("run", "--", "sleep", "60")
    running.wait_logged("child_started")
    code, owned = start.once("status", "--json")
    assert code == 0
    assert set(fields_of(json.loads(owned.stdout))) == told
    running.stop()


def test_least_rights(start: Starter, dsn: str) -> None:
    """A role with the rights that the README grants can do everything but make the tables."""
    role = f"bot_{secrets.token_hex(4)}"
    bot = conninfo.make_conninfo(dsn, user=role, password=role)
    assert start.once("init")[0] == 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(role), role))
        try:
            connection.execute(grants().replace("authsync_bot", role).encode())
            script = "echo '{}' > auth_info/creds.json; sleep 0.5; rm auth_info/creds.json; sleep 3"
            for arguments in (
                ("run", "--", "sh", "-c", script),
                ("backup",),
                ("run", "--", "sh", "-c", "echo '{}' > auth_info/creds.json; sleep 0.5"),
                ("restore",),
                ("rollback", "--at", "0s"),
                ("status",),
                ("delete", "--yes"),
            ):
                code, ended = start.once(*arguments, url=bot)
                assert code == 0, ended.report()
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {0}").format(sql.Identifier(role)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))
