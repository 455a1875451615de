"""``authsync init``."""

from __future__ import annotations

from typing import Any

import click

from authsync.cli import options


@click.command(epilog="\b\nExamples:\n  authsync init\n  authsync init --print-sql > schema.sql")
@options.common
@options.option("--print-sql", is_flag=True, help="Print the SQL instead of running it; needs no database.")
@click.pass_context
def init(ctx: click.Context, /, *, print_sql: bool, **_: Any) -> None:  # noqa: ANN401 - read by options.settings
    """Create or migrate the database schema. `run` does so by itself where it has the rights."""
    options.set_log_up(ctx)
    from authsync.store import schema  # noqa: PLC0415 - psycopg: not for --help
    from authsync.store.connection import Database, Trying  # noqa: PLC0415

    if print_sql:
        click.echo(schema.print_sql(Database("", ctx.params["schema"])))
        return
    settings = options.settings(ctx)
    with Database(settings.database_url, settings.schema) as db:
        version = db.retrying(lambda connection: schema.ensure(connection, db), Trying(budget_s=settings.budget_s))
    made = f"is now version {version}" if version is not None else f"is current (version {schema.SCHEMA_VERSION})"
    click.echo(f"The schema {settings.schema} {made}.")
