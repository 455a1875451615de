"""``authsync backup``."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from authsync.cli import options


@click.command(
    epilog="""\b
Examples:
  authsync backup
  authsync backup --reason 'before the upgrade'
  authsync backup --dry-run --json""",
)
@options.common
@options.option("--reason", metavar="TEXT", help="A note that the snapshot carries.")
@options.option("--force", is_flag=True, help="Store the folder over a newer state, after a snapshot of that.")
@options.option("--dry-run", is_flag=True, help="Print what would change.")
@options.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def backup(
    ctx: click.Context,
    /,
    *,
    reason: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    **_: Any,  # noqa: ANN401 - read by options.settings
) -> None:
    """Store the folder once, and keep a snapshot; through the running owner where there is one."""
    options.set_log_up(ctx)
    settings = options.settings(ctx)
    from authsync import log  # noqa: PLC0415 - psycopg and structlog: not for --help
    from authsync.oneshot.backup import Backup  # noqa: PLC0415
    from authsync.store.connection import Database  # noqa: PLC0415

    with Database(settings.database_url, settings.schema) as db:
        oneshot = Backup(settings, db, command="backup", tell=log.tell)
        if dry_run:
            delta = oneshot.plan_backup()
            if as_json:
                click.echo(json.dumps({"store": sorted(delta.changed), "remove": sorted(delta.removed)}))
                return
            for path in sorted(delta.changed):
                click.echo(f"store   {path}")
            for path in sorted(delta.removed):
                click.echo(f"remove  {path}")
            click.echo(f"{len(delta.changed)} to store, {len(delta.removed)} to remove")
            return
        done = oneshot.backup(reason=reason, force=force)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(done)))
        return
    by = "The running owner stored" if done.by_owner else "Stored"
    click.echo(f"{by} {done.files} files as revision {done.revision}; snapshot {done.snapshot or 'none'}.")
