"""``authsync status``: is my bot safe?"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from authsync.cli import options
from authsync.core.identity import read_identity
from authsync.core.manifest import Manifest, folder_of
from authsync.core.names import family, mask_numbers

if TYPE_CHECKING:  # psycopg: not for --help
    from authsync.store.sessions import OwnerChange, Status

OWNER_CHANGES = 20


@click.command(epilog="\b\nExamples:\n  authsync status\n  authsync status --json | jq .revision")
@options.common
@options.option("--json", "as_json", is_flag=True, help="Print JSON; its fields are stable.")
@options.option("--show-number", is_flag=True, help="Print paired numbers whole.")
@click.pass_context
def status(ctx: click.Context, /, *, as_json: bool, show_number: bool, **_: Any) -> None:  # noqa: ANN401 - as above
    """Tell who owns the session, how fresh it is, and what is not flushed."""
    options.set_log_up(ctx)
    settings = options.settings(ctx)
    from authsync.start import make_directory  # noqa: PLC0415 - psycopg: not for --help
    from authsync.store import files, schema, sessions  # noqa: PLC0415
    from authsync.store.connection import Database, Trying  # noqa: PLC0415

    def read(connection: Any) -> Any:  # noqa: ANN401 - psycopg's type is not imported here
        if schema.current_version(connection, db) == 0:
            return None
        with files.one_moment(connection):
            found = sessions.status(connection, db, settings.session_id)
            if found is None:
                return None
            return (
                found,
                sessions.owners(connection, db, settings.session_id, most=OWNER_CHANGES),
                files.read_manifest(connection, db, files.View(session_id=settings.session_id)),
                sessions.creds_files(connection, db, settings.session_id),
            )

    with Database(settings.database_url, settings.schema) as db:
        answer = db.retrying(read, Trying(budget_s=settings.budget_s))
    if answer is None:
        result: dict[str, Any] = {"session": settings.session_id, "state": "absent", "revision": 0}
    else:
        found, owners, stored, creds = answer
        result = _described(settings.session_id, found, owners, stored, creds, show_number=show_number)
        directory = make_directory(settings)
        if directory.exists():
            delta = stored.delta_to(directory.scan().manifest)
            result["folder"] = {
                "path": str(directory.root),
                "unflushed": len(delta.changed),
                "missing": len(delta.removed),
            }
    click.echo(json.dumps(result, indent=2) if as_json else _screen(result))


def _described(
    session_id: str,
    found: Status,
    owners: list[OwnerChange],
    stored: Manifest,
    creds: dict[str, bytes],
    *,
    show_number: bool,
) -> dict[str, Any]:
    def shown(text: str) -> str:
        return text if show_number else mask_numbers(text)

    bots = []
    for path in sorted(creds):
        identity = read_identity(creds[path])
        bot = folder_of(path)
        bots.append(
            {
                "bot": shown(bot) or ".",
                "paired": identity is not None and identity.paired,
                "number": shown(identity.number) if identity is not None and identity.paired else None,
                "files": stored.count_of(bot),
            }
        )
    held = found.held
    owner = next((change for change in owners if change.owner == found.owner), None)
    return {
        "session": session_id,
        "state": found.state,
        "revision": found.revision,
        "files": found.file_count,
        "bytes": found.total_bytes,
        "families": dict(sorted(Counter(family(path) for path in stored).items())),
        "bots": bots,
        "scope": found.scope,
        "owned": held,
        "owner": None
        if not held or owner is None
        else {"host": owner.host, "command": owner.command, "since": _iso(owner.acquired_at), "version": owner.version},
        "last_flush": _iso(found.updated_at) if found.revision else None,
        "last_flush_age_s": round((found.now - found.updated_at).total_seconds(), 1) if found.revision else None,
        "snapshots": found.snapshot_count,
        "newest_snapshot": _iso(found.newest_snapshot_at),
        "manifest_digest": found.manifest_digest,
        "owners": [
            {
                "number": change.number,
                "command": change.command,
                "host": change.host,
                "scope": change.scope,
                "deployment": change.deployment,
                "acquired": _iso(change.acquired_at),
                "ended": _iso(change.ended_at),
                "outcome": change.outcome,
            }
            for change in owners
        ],
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat(timespec="seconds") if moment is not None else None


def _screen(result: dict[str, Any]) -> str:
    if result["state"] == "absent":
        return f"Session {result['session']}: nothing is stored."
    owner = result["owner"]
    lines = [
        f"Session {result['session']}: {result['state']}, revision {result['revision']}",
        f"  owner      {owner['host']} ({owner['command']}) since {owner['since']}" if owner else "  owner      nobody",
        f"  scope      {result['scope']}",
        f"  stored     {result['files']} files, {result['bytes']} bytes"
        + (f", last flush {result['last_flush_age_s']} s ago" if result["last_flush"] else ""),
        f"  snapshots  {result['snapshots']}",
    ]
    if "folder" in result:
        folder = result["folder"]
        lines.append(f"  folder     {folder['path']}: {folder['unflushed']} not flushed, {folder['missing']} missing")
    lines += [f"  {count:>8} {name}" for name, count in result["families"].items()]
    for bot in sorted(result["bots"], key=lambda bot: bot["paired"]):
        paired = f"paired as {bot['number']}" if bot["paired"] else "NOT PAIRED"
        lines.append(f"  bot {bot['bot']}: {paired}, {bot['files']} files")
    for change in result["owners"]:
        ended = f"{change['ended']} {change['outcome']}" if change["ended"] else "still there"
        lines.append(
            f"  start {change['number']}: {change['command']} on {change['host']}, {change['acquired']} to {ended}"
        )
    return "\n".join(lines)
