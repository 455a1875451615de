"""What every one-shot command has: settings, a database, a folder, and the session for as long as it writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from authsync.config import Settings
from authsync.core.ownership import HOLDING
from authsync.marker import Marker
from authsync.start import Opening, Tell, acquire, make_directory, new_start
from authsync.store import leases
from authsync.store.connection import Database, Trying
from authsync.store.leases import Lease


class OneShot:
    """One command over one session and folder."""

    def __init__(self, settings: Settings, db: Database, *, command: str, tell: Tell) -> None:
        self.settings = settings
        self.db = db
        self.directory = make_directory(settings)
        self.marker = Marker(self.directory.root)
        self.trying = Trying(budget_s=settings.budget_s)
        self.opening = Opening(
            settings=settings,
            start=new_start(settings, command),
            db=db,
            directory=self.directory,
            marker=self.marker,
            tell=tell,
        )

    @contextmanager
    def owned(self) -> Iterator[Lease]:
        """Own the session for the length of a command; the lease is renewed while it lasts."""
        from authsync.leasethread import LeaseThread, Outage  # noqa: PLC0415 - not for a restore, which owns nothing

        lease = acquire(self.opening, self.trying, wait=False)
        renewing = LeaseThread(
            Database(self.settings.database_url, self.settings.schema),
            lambda: (lease.fence, 0),
            post=lambda _message: None,  # a lost fence is found by the next statement
            outage=Outage(),
        )
        renewing.start()
        outcome = "failed"
        try:
            yield lease
            outcome = "done"
        finally:
            renewing.stop(HOLDING.renew_s)
            self.db.call(lambda c: leases.release(c, self.db, lease.fence, outcome=outcome))
            self.marker.unlock()
