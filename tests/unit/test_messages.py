"""The catalogue of events and the source agree: every event that is logged has its texts, and no text is left over."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from string import Formatter

import pytest

import authsync
from authsync.core.flushplan import NoteKind
from authsync.messages import MESSAGES, WARNINGS

SOURCE = Path(authsync.__file__).parent
LEVELS = {"debug", "info", "warning", "error"}
TELLERS = {"tell", "_tell", "warn_once", "_warn_once"}
"""Functions of our own that take an event and its fields, as a logger does."""
RESERVED = {"event", "level", "message", "timestamp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One place that logs."""

    where: str
    event: str | None
    """None: a variable."""
    fields: frozenset[str]
    complete: bool
    """Whether all fields are named here, none by ``**``."""


def is_logger(function: ast.expr) -> bool:
    """Whether a call of this expression logs an event: ``log.get().info``, one of two of them, ``tell``."""
    match function:
        case ast.IfExp(body=body, orelse=orelse):
            return is_logger(body) or is_logger(orelse)
        case ast.Attribute(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr="get")), attr=level):
            return level in LEVELS
        case ast.Call(func=ast.Name(id="getattr"), args=[ast.Call(func=ast.Attribute(attr="get")), *_]):
            return True
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name in TELLERS
    return False


def strings(tree: ast.AST) -> frozenset[str]:
    """All string literals."""
    return frozenset(
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(SOURCE.rglob("*.py"))}


def calls() -> Iterator[Call]:
    """All places that log."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and is_logger(node.func) and node.args):
                continue
            first = node.args[0]
            event = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
            yield Call(
                where=f"{path.relative_to(SOURCE)}:{node.lineno}",
                event=event,
                fields=frozenset(keyword.arg for keyword in node.keywords if keyword.arg is not None),
                complete=all(keyword.arg is not None for keyword in node.keywords),
            )


def assigned() -> Iterator[str]:
    """The strings that a variable or attribute called ``event`` may be."""
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign):
                names = {getattr(target, "attr", getattr(target, "id", None)) for target in node.targets}
                yield from strings(node.value) if "event" in names else ()


CALLS = list(calls())
LITERAL = [call for call in CALLS if call.event is not None]
NOTES = {kind.value for kind in NoteKind}


def placeholders(text: str) -> set[str]:
    """The fields that a text names."""
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_found() -> None:
    """The search below finds what is known to be there: a logger, a teller, and one of two loggers."""
    found = {call.event for call in LITERAL}
    assert {"started", "stopped", "schema_migrated", "flush_done", "file_torn"} <= found
    assert len(CALLS) > 30


@pytest.mark.parametrize("event", MESSAGES)
def test_both_languages(event: str) -> None:
    """Each event has two texts of one line; the Portuguese names no field that the English lacks."""
    english, portuguese = MESSAGES[event]
    for text in (english, portuguese):
        assert text.strip() == text != ""
        assert "\n" not in text
        assert all(name.isidentifier() for name in placeholders(text))
        assert not any(spec or conversion for _, _, spec, conversion in Formatter().parse(text))
    assert placeholders(portuguese) <= placeholders(english)
    assert event == event.lower()
    assert event.replace("_", "").isalpha()


@pytest.mark.parametrize("call", LITERAL, ids=lambda call: f"{call.where} {call.event}")
def test_call(call: Call) -> None:
    """Each event that is logged is in the catalogue, with all fields that its texts name, and none that is ours."""
    assert call.event in MESSAGES
    assert not call.fields & RESERVED
    if call.complete:
        english, portuguese = MESSAGES[call.event]
        assert placeholders(english) | placeholders(portuguese) <= call.fields


@pytest.mark.parametrize("kind", NoteKind)
def test_note(kind: NoteKind) -> None:
    """What a flush has to tell is in the catalogue; its texts name what a note is told with."""
    fields = {"for_s", "path"} if kind is NoteKind.TORN else {"bot", "snapshot"}
    assert placeholders(" ".join(MESSAGES[kind.value])) <= fields


def test_assigned() -> None:
    """An event that a variable carries to its logger is in the catalogue too."""
    assert set(assigned()) <= MESSAGES.keys()


def test_warnings() -> None:
    """The events that are always warnings are in the catalogue."""
    assert MESSAGES.keys() >= WARNINGS


def test_none_unused() -> None:
    """No text of the catalogue is left over from an event that is gone."""
    used = {call.event for call in LITERAL} | NOTES | set(assigned())
    assert [event for event in MESSAGES if event not in used] == []
