"""The log as its readers see it: JSON and console, two languages, numbers masked, and a stderr that may go away."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from authsync import log

NUMBER = "5511987654321"


@pytest.fixture(autouse=True)
def _defaults() -> Iterator[None]:
    """Leaves structlog as it was."""
    yield
    structlog.reset_defaults()


class Terminal(io.StringIO):
    """A stderr that a person watches."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was logged as JSON; nothing goes to stdout, which is for data."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON has level, event, message, a time with its zone, and the fields as they are."""
    log.configure(fmt="json")
    log.get().warning("child_killed", stop_timeout_s=6.0)
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "child_killed",
        "message": "The bot did not stop within 6.0 s and was killed",
        "stop_timeout_s": 6.0,
    }


def test_auto(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` is JSON for a collector and readable for a person."""
    log.configure(fmt="auto")
    log.get().info("child_started")
    assert lines(capsys)[0]["event"] == "child_started"
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    log.configure(fmt="auto")
    log.get().info("child_started", pid=7)
    assert "The bot runs" in terminal.getvalue()
    assert "{" not in terminal.getvalue()


def test_console(capsys: pytest.CaptureFixture[str]) -> None:
    """The console shows the message and the fields, not the event's name."""
    log.configure(fmt="console")
    log.get().info("stopped", code=3)
    said = capsys.readouterr().err
    assert "Stopped with code 3" in said
    assert "code=3" in said
    assert "event" not in said


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level(level: str, shown: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Below the level nothing is shown."""
    log.configure(fmt="json", level=level)
    for name in ("debug", "info", "warning", "error"):
        getattr(log.get(), name)("child_started")
    assert [line["level"] for line in lines(capsys)] == shown


@pytest.mark.parametrize(
    ("event", "fields", "text"),
    [
        ("restore_done", {"session": "default", "files": 3}, "✅ Sessão default restaurada do banco"),
        ("flush_done", {"files": 3}, "💾 Sessão salva no banco de dados"),
        ("session_absent", {"session": "default"}, "\u2139\ufe0f Nenhuma sessão default encontrada no banco"),
        ("fresh_start", {}, "📱 Nenhuma sessão encontrada, nova conexão será iniciada"),
    ],
)
def test_portuguese(event: str, fields: dict[str, Any], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The lines that users of the replaced system know, and may search for, are the same to the letter."""
    log.configure(fmt="json", language="pt")
    log.get().info(event, **fields)
    (line,) = lines(capsys)
    assert line["message"] == text
    assert line["event"] == event


def test_not_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON shows letters and emoji as they are, so that a search finds them."""
    log.configure(fmt="json", language="pt")
    log.get().info("flush_done")
    assert "💾 Sessão salva no banco de dados" in capsys.readouterr().err


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_masked(fmt: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A phone number is masked in every field and in the message that is made of them."""
    log.configure(fmt=fmt)
    log.get().warning("path_not_synced", path=f"session-{NUMBER}.0.json", reason=f"it is a link to {NUMBER}")
    said = capsys.readouterr().err
    assert NUMBER not in said
    assert "session-5511*****4321.0.json" in said
    assert "it is a link to 5511*****4321" in said


def test_other_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, bytes and times are no phone numbers, however large."""
    log.configure(fmt="json")
    log.get().info("flush_done", bytes=123456789012, took_ms=12345678.9)
    (line,) = lines(capsys)
    assert (line["bytes"], line["took_ms"]) == (123456789012, 12345678.9)
    assert "*" not in line["timestamp"]


@pytest.mark.parametrize(("event", "level"), [("fresh_start", "info"), ("copy_kept", "warning")])
def test_tell(event: str, level: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a start or a flush tells has the level that it always has."""
    log.configure(fmt="json")
    log.tell(event, snapshot=7)
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["snapshot"]) == (event, level, 7)


def test_missing_field(capsys: pytest.CaptureFixture[str]) -> None:
    """A text whose field is missing is shown with a question mark: logging never fails."""
    log.configure(fmt="json")
    log.get().info("stopped")
    assert lines(capsys)[0]["message"] == "Stopped with code ?"


def test_unknown_event(capsys: pytest.CaptureFixture[str]) -> None:
    """An event without a text is shown by its name."""
    log.configure(fmt="json")
    log.get().info("never_heard_of")
    assert lines(capsys)[0]["message"] == "never_heard_of"


@pytest.mark.parametrize("value", ["{code}", "{0}", "{", "}", "%s"])
def test_no_template(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A value that looks like a template is shown as it is."""
    log.configure(fmt="json")
    log.get().info("failed", error=value)
    assert lines(capsys)[0]["message"] == value


class Gone(io.StringIO):
    """A stderr whose reader has gone."""

    def write(self, text: str, /) -> int:
        """It cannot be written."""
        raise BrokenPipeError(text)

    def flush(self) -> None:
        """Nor flushed."""
        raise BrokenPipeError


def test_reader_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log line that nobody takes ends nothing, nor does one to a stream that is closed."""
    monkeypatch.setattr(sys, "stderr", Gone())
    log.configure(fmt="json")
    log.get().info("child_started")
    closed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", closed)
    log.configure(fmt="json")
    closed.close()
    log.get().info("child_started")


def test_reader_asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that is full and that nobody reads holds nothing up: the line is dropped."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writing, b"x" * 4096):
            pass
    os.set_blocking(writing, True)
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        log.configure(fmt="json")
        log.get().info("child_started")
        assert b"child_started" not in os.read(reader.fileno(), 1 << 20)
        log.get().info("child_ended", code=0)
        assert b"child_ended" in os.read(reader.fileno(), 1 << 20)
