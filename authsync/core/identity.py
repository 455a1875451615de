"""Whose folder it is: what a Baileys ``creds.json`` says of its identity. Content is read, never judged or changed."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The identity in a ``creds.json``."""

    key_id: str = ""
    """Fingerprint of ``signedIdentityKey.public``; empty if there is none."""
    paired: bool = False
    """``account`` and ``me.id`` are there. (``registered`` stays false for a QR pairing.)"""
    number: str = field(default="", repr=False)
    """The paired phone number; never logged whole."""


def read_identity(content: bytes) -> Identity | None:
    """The identity in ``content``; None where it is no JSON (torn, say), an empty one where it is no object."""
    try:
        creds: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(creds, dict):
        return Identity()
    key = creds.get("signedIdentityKey")
    public = key.get("public") if isinstance(key, dict) else None
    me = creds.get("me")
    jid = me.get("id") if isinstance(me, dict) else None
    return Identity(
        key_id=hashlib.sha256(json.dumps(public, sort_keys=True).encode()).hexdigest()[:16] if public else "",
        paired=bool(creds.get("account")) and bool(jid),
        number=jid.split("@")[0].split(":")[0] if isinstance(jid, str) else "",
    )


def replaces_paired(stored: Identity | None, local: Identity | None) -> bool:
    """Whether ``local`` would replace a paired identity by an unpaired or another one (a snapshot comes first)."""
    if stored is None or not stored.paired or local is None:
        return False
    return not local.paired or local.key_id != stored.key_id


def just_paired(before: Identity | None, after: Identity | None) -> bool:
    """Whether this step is a pairing: an identity is paired that was not."""
    return after is not None and after.paired and not (before is not None and before.paired)
