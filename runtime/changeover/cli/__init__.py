"""The command line. Nothing else of the package is loaded before a verb needs it."""

from __future__ import annotations


def main() -> None:
    """The `changeover` command. Ends the process with the exit status that docs/cli.md explains."""
    from changeover.cli.app import run

    raise SystemExit(run())
