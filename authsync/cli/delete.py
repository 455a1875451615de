"""``authsync delete``."""

from __future__ import annotations

from typing import Any

import click

from authsync.cli import options


@click.command(
    epilog="\b\nExamples:\n  authsync delete --session-id old-bot\n  authsync delete --session-id old-bot --yes"
)
@options.common
@options.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def delete(ctx: click.Context, /, *, yes: bool, **_: Any) -> None:  # noqa: ANN401 - read by options.settings
    """Remove a session's files and history from the database, and leave a tombstone. The folder stays."""
    options.set_log_up(ctx)
    settings = options.settings(ctx)
    if not yes:
        click.confirm(
            f"Delete session {settings.session_id!r} with all its snapshots? The bot will have to pair again",
            abort=True,
            err=True,
        )
    from authsync import log  # noqa: PLC0415 - psycopg and structlog: not for --help
    from authsync.oneshot.delete import Delete  # noqa: PLC0415
    from authsync.store.connection import Database  # noqa: PLC0415

    with Database(settings.database_url, settings.schema) as db:
        existed = Delete(settings, db, command="delete", tell=log.get().debug).delete()
    click.echo(f"Session {settings.session_id} is deleted." if existed else "Nothing was stored; a tombstone is.")
