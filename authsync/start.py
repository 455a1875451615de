"""A start: the schema, the registry and the lease; what comes after them is ``reconcile.py``."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from authsync import __version__
from authsync.config import Settings
from authsync.core.ownership import HOLDING, Refusal, refusal
from authsync.directory import Directory
from authsync.errors import OwnedError
from authsync.marker import Mark, Marker
from authsync.store import leases, schema
from authsync.store.connection import Database, Trying
from authsync.store.leases import Lease, Start

ACQUIRE_EVERY_S = 0.5
"""How often a start that waits looks whether the session became free."""

Tell = Callable[..., None]
"""Takes an event of the catalogue and its fields: how a start reports what it does."""


def new_start(settings: Settings, command: str) -> Start:
    """Describe this process for the registry; its owner id is fresh."""
    return Start(
        owner=str(uuid.uuid4()),
        command=command,
        scope=settings.scope,
        deployment=settings.deployment,
        host=platform.node(),
        boot_id=_boot_id(),
        version=__version__,
    )


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""  # not Linux


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a start needs besides the settings."""

    settings: Settings
    start: Start
    db: Database
    directory: Directory
    marker: Marker
    tell: Tell
    force: bool = False
    watching: bool = False
    require_session: bool = False
    """Nothing stored is an error: never start a bot that would have to pair."""
    on_wait: Callable[[], None] = lambda: None
    """Called once when the session turns out to be held by another."""


def ensure_schema(opening: Opening, trying: Trying) -> None:
    """Make or migrate the schema, patiently: a database may come up minutes after its bot."""
    version = opening.db.retrying(lambda connection: schema.ensure(connection, opening.db), trying)
    if version is not None:
        opening.tell("schema_migrated", version=version)


def acquire(opening: Opening, trying: Trying, *, wait: bool) -> Lease:
    """Own the session; ``wait`` for its owner to end.

    Raises:
        OwnedError: it belongs to another service; or it is held, and we do not wait.
    """
    db, start, session_id = opening.db, opening.start, opening.settings.session_id
    number = db.retrying(lambda connection: leases.register(connection, db, session_id, start), trying)
    mark = opening.marker.read()
    # The marker's lock is ours, so the process that wrote it is gone: no need to wait for its lease.
    predecessor = mark.owner if mark is not None and _is_in_place(opening, mark) else None
    told = False
    while True:
        lease = db.retrying(
            lambda connection: leases.acquire(
                connection,
                db,
                session_id,
                start,
                ttl_s=HOLDING.ttl_s,
                predecessor=predecessor,
                force=opening.force,
            ),
            trying,
        )
        if lease is not None:
            _record_acquisition(opening, lease, number, trying)
            return lease
        claim = db.retrying(lambda connection: leases.read_claim(connection, db, session_id), trying)
        if claim is not None and refusal(claim, scope=start.scope) is Refusal.OTHER_SCOPE:
            _record_end(opening, trying, "refused")
            raise OwnedError(
                f"the session {session_id!r} belongs to another service ({claim.scope}); this one is {start.scope}",
                hint="set another --session-id for this bot, or --takeover force to move the session here"
                if wait
                else f"set another --session-id; or, if this session is meant, --scope {claim.scope}",
            )
        if not wait and claim is not None:
            _record_end(opening, trying, "refused")
            raise OwnedError(
                f"the session {session_id!r} is owned by a running process on {claim.owner_host or 'another host'}",
                hint="stop it first, or wait until its lease ends",
            )
        if not told and claim is not None:
            told = True
            opening.on_wait()
            opening.tell("owner_waited_for", owner_host=claim.owner_host, expires_in_s=claim.expires_in_s)
        trying.patience.pause(ACQUIRE_EVERY_S)
        if trying.patience.cancelled:
            raise OwnedError("the session was still owned when we were told to stop", hint="")


def _is_in_place(opening: Opening, mark: Mark) -> bool:
    """Whether ``mark`` was written here: same machine, same boot, and the very file (a copied folder's is another)."""
    start = opening.start
    return (mark.host, mark.boot_id, mark.place) == (start.host, start.boot_id, opening.marker.place)


def _record_acquisition(opening: Opening, lease: Lease, number: int, trying: Trying) -> None:
    previous = opening.db.retrying(
        lambda connection: leases.record_acquisition(connection, opening.db, lease.fence, number), trying
    )
    opening.tell(
        "session_acquired",
        number=number,
        revision=lease.head.revision,
        age_s=lease.age_s,
        previous_host=previous[0] if previous else None,
        previous_ended=previous[1] if previous else None,
    )


def _record_end(opening: Opening, trying: Trying, outcome: str) -> None:
    opening.db.retrying(
        lambda connection: leases.end(
            connection, opening.db, opening.settings.session_id, opening.start.owner, outcome=outcome
        ),
        trying,
    )


def make_directory(settings: Settings) -> Directory:
    """The folder of ``settings``, by its real path: a link to a volume stays what it was at the start."""
    return Directory(
        Path(os.path.realpath(settings.directory)),
        names=settings.names,
        max_file_size_bytes=settings.max_file_size_bytes,
    )
