"""structlog's set-up: JSON for collectors, readable lines for people, in English or Portuguese, with numbers masked.

Events are fixed past-tense English names; ``messages.py`` says what each means to a person.
"""

from __future__ import annotations

import logging
import select
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from authsync.core.names import mask_numbers
from authsync.messages import MESSAGES, WARNINGS

PATIENCE_S = 0.1
"""How long a line waits for the reader of stderr before it is dropped."""
LANGUAGES = ("en", "pt")

_EventDict = MutableMapping[str, Any]


class _Stderr:
    """stderr that outlives its reader: a log line that nobody takes must not end the bot."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        try:
            self._fd: int | None = stream.fileno()
        except (OSError, ValueError):  # not a file, or closed
            self._fd = None

    def write(self, text: str) -> None:
        try:
            # A full pipe that nobody reads would hold up the signal, the flush and the lease.
            if self._fd is None or select.select([], [self._fd], [], PATIENCE_S)[1]:
                self._stream.write(text)
        except (OSError, ValueError):  # the pipe's reader is gone, or the stream closed: there is nobody to tell
            return

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):  # as above
            return


class _Blanks(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return "?"


def _masked(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    for key, value in event.items():
        if isinstance(value, str) and key != "timestamp":
            event[key] = mask_numbers(value)
    return event


class _Messages:
    """Adds ``message`` in the chosen language."""

    def __init__(self, language: str) -> None:
        self._index = LANGUAGES.index(language)

    def __call__(self, _logger: object, _method: str, event: _EventDict) -> _EventDict:
        texts = MESSAGES.get(event["event"])
        event["message"] = texts[self._index].format_map(_Blanks(event)) if texts else event["event"]
        return event


def configure(*, fmt: str = "auto", level: str = "info", language: str = "en") -> None:
    """Set the log up: once a process, before the first line. ``auto`` is JSON where stderr is no terminal."""
    as_json = fmt == "json" or (fmt == "auto" and not sys.stderr.isatty())
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), event_key="message", timestamp_key="timestamp", pad_event_to=0
        )
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso" if as_json else "%H:%M:%S", utc=as_json),
            _masked,
            _Messages(language),
            *([] if as_json else [_without_name]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=_Stderr(sys.stderr)),  # type: ignore[arg-type]  # the two methods that it calls
        cache_logger_on_first_use=True,
    )


def _without_name(_logger: object, _method: str, event: _EventDict) -> _EventDict:
    event.pop("event")
    return event


def get() -> structlog.typing.FilteringBoundLogger:
    """The logger. Each event has a name of ``messages.py`` and its numbers as fields with units in their names."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def tell(event: str, **fields: object) -> None:
    """Log an event at the level that it always has."""
    (get().warning if event in WARNINGS else get().info)(event, **fields)
