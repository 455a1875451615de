"""``authsync run`` and ``authsync watch``."""

from __future__ import annotations

import gc
import os
from typing import Any, NoReturn

import click

from authsync import config
from authsync.cli import options


@click.command(
    context_settings={"allow_interspersed_args": False},
    epilog="""\b
Examples:
  authsync run -- node server.js
  authsync run --dir sessions --session-id bot-2 -- npm start
  DATABASE_URL=embedded: authsync run -- node server.js""",
)
@options.supervising
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, /, command: tuple[str, ...], **_: Any) -> int:  # noqa: ANN401 - read by options.run_settings
    """Restore the folder, run COMMAND, store every change; exit with COMMAND's code."""
    if not command:
        raise options.usage("there is no command to run", hint="authsync run -- node server.js")
    options.set_log_up(ctx)
    if options.given_url(ctx) == config.OFF:
        _run_alone(command)
    return _supervise(ctx, command)


@click.command(
    epilog="""\b
Examples:
  authsync watch --dir /shared/auth_info""",
)
@options.supervising
@click.pass_context
def watch(ctx: click.Context, /, **_: Any) -> int:  # noqa: ANN401 - read by options.run_settings
    """Restore the folder, then store every change, where another container runs the bot."""
    options.set_log_up(ctx)
    return _supervise(ctx, ())


def _supervise(ctx: click.Context, command: tuple[str, ...]) -> int:
    settings = options.run_settings(ctx, command)
    # Threads, watchdog and psycopg: only now.
    from authsync import log, signals  # noqa: PLC0415
    from authsync.daemon import Daemon  # noqa: PLC0415
    from authsync.platform import detect  # noqa: PLC0415

    gc.freeze()  # what the imports made stays; a collection need not look at it
    gc.enable()
    if detect(os.environ).grace_unset:
        log.get().warning("grace_unset")
    ended = Daemon(settings).run()
    signals.ignore()
    if ended.error is not None and ended.error.exit_code == ended.exit_code:
        raise ended.error
    return ended.exit_code


def _run_alone(command: tuple[str, ...]) -> NoReturn:
    """Become the command: nothing is restored and nothing is stored."""
    from authsync import log  # noqa: PLC0415 - see above
    from authsync.child import environment, find_command, start_error  # noqa: PLC0415

    log.get().warning("switched_off")
    program = find_command(command)
    try:
        os.execve(program, list(command), environment(os.environ))  # noqa: S606 - running it is what was asked
    except OSError as error:
        raise start_error(error, command[0]) from error
