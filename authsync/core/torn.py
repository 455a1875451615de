"""Whether bytes are a whole version of a file, or were read in the middle of a write.

Every released Baileys truncates, yields, then writes: an empty or half ``creds.json`` may stay on disk for as long as
the bot blocks its loop. No fixed wait helps, so the content decides: a ``.json`` file whose stored version parses must
parse, and an empty file never replaces one that is not.
"""

from __future__ import annotations

import json
from enum import Enum, auto

OPAQUE_AFTER_S = 5.0
"""A ``.json`` name that never held JSON is taken as opaque once it has been still for so long."""


class StoredForm(Enum):
    """What is stored under a file's path."""

    NOTHING = auto()
    EMPTY = auto()
    JSON = auto()
    OPAQUE = auto()
    """Bytes that are not JSON, or a file of another kind."""


class Verdict(Enum):
    """What may be done with the bytes that were read."""

    WHOLE = auto()
    TORN = auto()
    """The stored version stays; read the file again soon."""
    UNSETTLED = auto()
    """As TORN for now: a ``.json`` name that never held JSON, not yet still for OPAQUE_AFTER_S."""


def parses(content: bytes) -> bool:
    """Whether ``content`` is JSON."""
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True


def judge(path: str, content: bytes, *, stored: StoredForm, still_s: float) -> Verdict:
    """Judge ``content`` read from ``path``, unchanged for ``still_s`` seconds, against what is ``stored`` there."""
    if not content and stored in {StoredForm.JSON, StoredForm.OPAQUE}:
        return Verdict.TORN
    if not path.endswith(".json") or parses(content):
        return Verdict.WHOLE
    if stored is StoredForm.JSON:
        return Verdict.TORN
    if stored is StoredForm.OPAQUE or still_s >= OPAQUE_AFTER_S:
        return Verdict.WHOLE
    return Verdict.UNSETTLED
