"""The verbs of `changeover`, and the border at which errors become a sentence and an exit status."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from changeover import __version__
from changeover.cli import (
    adopt,
    answering,
    backup,
    doctor,
    look,
    migrate,
    operations,
    output,
    project,
    resources,
    rollout,
    serve,
    threads,
    use,
)
from changeover.cli.options import Database, Output, Project, Token, Url, shared, with_shared
from changeover.errors import ChangeoverError, ProjectError

PROBLEMS_SHOWN = 50
EXIT_WOULD_BREAK_THREADS = 6
EXIT_INTERRUPTED = 130

START = "Start a project"
ROLLOUT = "Change what is served"
LOOK = "Look"
THREADS = "Threads"
USE = "Use"
KEEP = "Keep"

app = typer.Typer(
    name="changeover",
    help="Versions for LangGraph agents, switched without dropping a run.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"changeover {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    context: typer.Context,
    url: Url = None,
    project: Project = None,
    database: Database = None,
    token: Token = None,
    output: Output = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    context.obj = shared(url=url, project=project, database=database, token=token, output=output)


for panel, verbs in {
    START: (project.init, project.check, project.schema, doctor.doctor, serve.serve),
    ROLLOUT: (
        *(
            rollout.build,
            migrate.plan,
            rollout.switch,
            rollout.ramp,
            rollout.rollback,
            rollout.drain,
            rollout.retire,
            rollout.gc,
        ),
    ),
    LOOK: (
        look.status,
        look.versions,
        look.show,
        look.diff,
        look.history,
        look.events,
        look.holders,
        operations.operations,
        resources.resources,
    ),
    THREADS: (threads.threads, threads.thread, threads.pin, migrate.migrate, adopt.adopt),
    USE: (use.run, use.chat, answering.approve),
    KEEP: (backup.backup, backup.restore),
}.items():
    for verb in verbs:
        app.command(rich_help_panel=panel)(with_shared(verb))


def run() -> int:
    """Parse the command line, do it, and return the exit status."""
    try:
        app(prog_name="changeover")
    except ChangeoverError as error:
        if _debugging():
            raise
        _report(error)
        return exit_status(error)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if _debugging():
            raise
        _report(
            ChangeoverError(
                f"changeover failed unexpectedly: {type(error).__name__}: {error}",
                code="internal",
                hint="run it again with CHANGEOVER_DEBUG=1 and report what it prints",
            )
        )
        return 1
    return 0


def exit_status(error: ChangeoverError) -> int:
    return EXIT_WOULD_BREAK_THREADS if error.code == "would-break-threads" else error.exit_status


def _report(error: ChangeoverError) -> None:
    """A sentence for people on stderr; for machines the same as a document on stdout."""
    if isinstance(error, ProjectError):
        for problem in error.problems[:PROBLEMS_SHOWN]:
            output.say(problem.render())
        if len(error.problems) > PROBLEMS_SHOWN:
            output.say(f"... and {len(error.problems) - PROBLEMS_SHOWN} more")
    output.say(f"error: {error.message.splitlines()[0] if error.message else error.code}")
    if error.hint:
        output.say(f"  {error.hint}")
    if output.json_is_wanted(sys.argv[1:]):
        output.document(_document(error))


def _document(error: ChangeoverError) -> dict[str, object]:
    told = {"code": error.code, "message": error.message, "hint": error.hint, **error.extra}
    if isinstance(error, ProjectError):
        told |= {"message": error.message.splitlines()[0], "version": error.version}
        told["problems"] = [problem.to_json() for problem in error.problems]
    return {"error": told} if "problems" not in told else {"error": told, "problems": told.pop("problems")}


def _debugging() -> bool:
    return os.environ.get("CHANGEOVER_DEBUG", "") not in ("", "0")
