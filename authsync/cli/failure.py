"""How an error looks: one line says what is wrong, a second what to do."""

from __future__ import annotations

import click

from authsync.core.names import mask_numbers
from authsync.errors import AuthsyncError


def print_error(error: AuthsyncError) -> None:
    """Print ``error`` to stderr, with numbers masked."""
    click.echo(f"Error: {mask_numbers(error.message)}", err=True)
    if error.hint:
        click.echo(f"Try: {mask_numbers(error.hint)}", err=True)
