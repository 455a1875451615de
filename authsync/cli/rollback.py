"""``authsync rollback``."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime, timedelta
from typing import Any

import click

from authsync.cli import options


@click.command(
    epilog="""\b
Examples:
  authsync rollback 42
  authsync rollback --at 2h
  authsync rollback 42 --only 'user_17/*'""",
)
@options.common
@click.argument("snapshot", type=int, required=False)
@options.option("--at", type=options.MOMENT, help="The state of so long ago (2h) or at a time (ISO).")
@options.option("--only", metavar="GLOB", help="These paths alone.")
@options.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def rollback(
    ctx: click.Context,
    /,
    *,
    snapshot: int | None,
    at: datetime | timedelta | None,
    only: str | None,
    as_json: bool,
    **_: Any,  # noqa: ANN401 - read by options.settings
) -> None:
    """Make an older snapshot the live state, as a new revision; the present one is kept as a snapshot first.

    Older ratchets are stale: contacts that wrote since then may have to send again. Stop the bot before.
    """
    if (snapshot is None) == (at is None):
        raise options.usage("name one restore point: a snapshot's number, or --at", hint="authsync rollback --help")
    options.set_log_up(ctx)
    settings = options.settings(ctx)
    from authsync import log  # noqa: PLC0415 - psycopg and structlog: not for --help
    from authsync.oneshot.rollback import Rollback  # noqa: PLC0415
    from authsync.store.connection import Database  # noqa: PLC0415

    with Database(settings.database_url, settings.schema) as db:
        oneshot = Rollback(settings, db, command="rollback", tell=log.get().debug)
        done = oneshot.rollback(snapshot=snapshot, at=at, only=only)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done)))
        return
    click.echo(
        f"Rolled back as revision {done.revision}: {done.written} files written, {done.removed} removed. "
        f"Undo: authsync rollback {done.snapshot_before}"
    )
