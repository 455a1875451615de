"""The group of commands, and the one place that turns errors into two lines and an exit code."""

from __future__ import annotations

import os
import sys
import traceback

import click

from authsync import __version__
from authsync.cli.backup import backup
from authsync.cli.delete import delete
from authsync.cli.failure import print_error
from authsync.cli.init import init
from authsync.cli.options import wants_traceback
from authsync.cli.restore import restore
from authsync.cli.rollback import rollback
from authsync.cli.run import run, watch
from authsync.cli.status import status
from authsync.errors import AuthsyncError, BugError, ConfigError, UsageError

USAGE_EXIT_CODE = UsageError.exit_code
INTERRUPTED_EXIT_CODE = 130


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Try it: DATABASE_URL=embedded: authsync run -- node server.js",
)
@click.version_option(__version__, message="authsync %(version)s")
def authsync() -> None:
    """Keep a bot's identity folder in PostgreSQL, so that it survives its container.

    `authsync run -- node server.js` restores the folder, starts the bot, stores every change, and on SIGTERM flushes
    what is left and exits with the bot's code.
    """


for _command in (run, watch, restore, rollback, backup, status, delete, init):
    authsync.add_command(_command)


def run_command_line(arguments: list[str]) -> int:
    """Run one command line; returns the process's exit code."""
    if sys.platform == "win32":
        return _fail(ConfigError("authsync needs a POSIX system", hint="run it in WSL or a container"), arguments)
    try:
        outcome = authsync.main(args=arguments, prog_name="authsync", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return USAGE_EXIT_CODE
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "authsync"
        return _fail(UsageError(error.format_message(), hint=f"{path} --help"), arguments)
    except click.exceptions.Abort:
        click.echo("Aborted.", err=True)
        return INTERRUPTED_EXIT_CODE
    except AuthsyncError as error:
        return _fail(error, arguments)
    except BrokenPipeError:  # the reader of stdout has gone: `authsync status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - a bug is reported as one, with its exit code
        return _fail(
            BugError(
                f"{type(error).__name__}, a bug in authsync", hint="report it with the output of --log-level debug"
            ),
            arguments,
        )
    return outcome if isinstance(outcome, int) else 0


def _fail(error: AuthsyncError, arguments: list[str]) -> int:
    """Print an error, at debug level with its traceback."""
    if wants_traceback(arguments):
        traceback.print_exc()
    print_error(error)
    return error.exit_code
