"""``authsync restore``."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from authsync.cli import options
from authsync.cli.progress import Progress
from authsync.core.manifest import Delta


@click.command(
    epilog="""\b
Examples:
  authsync restore
  authsync restore --dry-run
  authsync restore --to /tmp/yesterday --at 24h
  authsync restore --to /tmp/one --only 'user_17/*'""",
)
@options.common
@options.option("--to", "target", type=click.Path(file_okay=False, path_type=Path), help="Another, empty folder.")
@options.option("--snapshot", type=int, help="This restore point; needs --to.")
@options.option("--at", type=options.MOMENT, help="The state of so long ago (2h) or at a time (ISO); needs --to.")
@options.option("--only", metavar="GLOB", help="These paths alone; needs --to.")
@options.option("--force", is_flag=True, help="Replace unstored changes; they are kept in DIR.before-TIME.")
@options.option("--dry-run", is_flag=True, help="Print what would change.")
@options.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def restore(
    ctx: click.Context,
    /,
    *,
    target: Path | None,
    snapshot: int | None,
    at: datetime | timedelta | None,
    only: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    **_: Any,  # noqa: ANN401 - read by options.settings
) -> None:
    """Write the stored session into the folder. Never writes the database."""
    if target is None and (snapshot is not None or at is not None or only is not None):
        raise options.usage(
            "--snapshot, --at and --only need --to", hint="into the live folder that is a rollback; or add --to DIR"
        )
    if target is not None and dry_run:
        raise options.usage("--dry-run goes with the live folder, not with --to", hint="leave one of them out")
    options.set_log_up(ctx)
    settings = options.settings(ctx)
    from authsync import log  # noqa: PLC0415 - psycopg and structlog: not for --help
    from authsync.oneshot.restore import Restore  # noqa: PLC0415
    from authsync.restore import Restored  # noqa: PLC0415
    from authsync.store.connection import Database  # noqa: PLC0415

    with Database(settings.database_url, settings.schema) as db:
        oneshot = Restore(settings, db, command="restore", tell=log.tell)
        if dry_run:
            _print_plan(*oneshot.plan_restore(), as_json=as_json)
            return
        with Progress("restored") as progress:
            aside: Path | None = None
            restored: Restored | None
            if target is not None:
                restored = oneshot.restore_to(target, snapshot=snapshot, at=at, only=only, progress=progress.show)
            else:
                restored, aside = oneshot.restore(force=force, progress=progress.show)
        if restored is None:
            log.get().info("session_absent", session=settings.session_id)
            if as_json:
                click.echo(json.dumps({"restored": False}))
            return
        result = {
            "restored": True,
            "files": len(restored.manifest),
            "bytes": restored.manifest.totals.total_bytes,
            "files_written": restored.files_written,
            "files_removed": restored.files_removed,
            "took_ms": restored.took_ms,
            "kept_in": str(aside) if aside is not None else None,
        }
        log.get().info("restore_done", session=settings.session_id, **result)
        if as_json:
            click.echo(json.dumps(result))


def _print_plan(delta: Delta, stored: int, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"stored": stored, "write": sorted(delta.changed), "remove": sorted(delta.removed)}))
        return
    for path in sorted(delta.changed):
        click.echo(f"write   {path}")
    for path in sorted(delta.removed):
        click.echo(f"remove  {path}")
    click.echo(f"{len(delta.changed)} to write, {len(delta.removed)} to remove, {stored} stored")
