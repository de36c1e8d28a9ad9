"""Verbs that need no server: start a project, find its problems, give editors its schemas."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from changeover.cli import output
from changeover.cli.options import Options
from changeover.errors import Conflict, NotFound, OperatorError

if TYPE_CHECKING:
    from changeover.project.problems import Problem

SAMPLE = ("agents.yaml", "tools.yaml", "prompts", "graphs", ".env.example")
IGNORED = ".changeover/\n.env\n__pycache__/\n"
_EDITOR_GLOBS = {
    "agents.yaml": "agents.yaml",
    "tools.yaml": "tools.yaml",
    "graph": "graphs/*.yaml",
    "migration": "migrations/*.yaml",
    "changeover.yaml": "changeover.yaml",
}

Folder = Annotated[Path | None, typer.Argument(metavar="[DIR]", help="The project's folder.", show_default=False)]


def init(
    options: Options,
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where to; made if it is missing.", show_default=False)
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Add an agents.yaml beside this langgraph.json.", show_default=False
        ),
    ] = None,
) -> None:
    """Start a project: write the sample, a help desk that needs no key. Overwrites nothing.

    With --from, add agents to a project that has a langgraph.json and is served as it stands.
    """
    if from_ is not None:
        _add_agents(options, from_, folder)
        return
    target = (folder or options.folder).absolute()
    written = _copy_sample(target)
    if options.json:
        output.document({"project": str(target), "written": written})
        return
    output.line(f"wrote {', '.join(written)} to {target}")
    inside = "" if target == Path.cwd() else f"cd {_shell(folder or target)} && "
    output.line(f"next: {inside}changeover check && changeover serve")


def _add_agents(options: Options, file: Path, folder: Path | None) -> None:
    from changeover.cli.adopting import add_agents

    written = add_agents(file, folder)
    problems = find_problems(written.parent)
    if options.json:
        found = [problem.to_json() for problem in problems]
        output.document({"project": str(written.parent), "written": [written.name], "problems": found})
        return
    output.line(f"wrote {written.name} to {written.parent}; langgraph.json serves as it stands")
    for problem in problems:
        output.line(problem.render())
    inside = "" if written.parent == Path.cwd() else f"cd {_shell(written.parent)} && "
    output.line(f"next: {inside}changeover check && changeover serve")


def check(options: Options, folder: Folder = None) -> None:
    """Find the project's problems. Runs none of its code, builds no model, opens no database."""
    problems = find_problems((folder or options.folder).absolute())
    errors = sum(problem.severity == "error" for problem in problems)
    if options.json:
        output.document({"problems": [problem.to_json() for problem in problems]})
    else:
        for problem in problems:
            output.line(problem.render())
        output.line(_summary(errors, len(problems) - errors))
    if errors:
        raise typer.Exit(1)


def schema(
    options: Options,
    kind: Annotated[
        str | None,
        typer.Argument(metavar="[KIND]", help="agents, tools, graph, prompt, changeover or migration; all without it."),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="DIR", help="Write the schemas to files there.", show_default=False),
    ] = None,
) -> None:
    """JSON Schemas of the project's files, for completion in editors."""
    from changeover.project.schema import schemas

    known = schemas()
    chosen = known if kind is None else {name: known[name] for name in [_kind(kind, list(known))]}
    if write is None:
        output.document(chosen if kind is None else next(iter(chosen.values())))
        return
    files = _write_schemas(write, chosen)
    if options.json:
        output.document({"written": {name: str(file) for name, file in files.items()}})
        return
    for file in files.values():
        output.line(f"wrote {file}")
    _explain_schemas(files)


def sample_folder() -> Path:
    """Where the sample is: inside the installed package, or at the top of the repository."""
    import changeover

    inside = Path(str(resources.files("changeover") / "sample"))
    for folder in (inside, Path(changeover.__file__).resolve().parents[2]):
        if (folder / "agents.yaml").is_file():
            return folder
    raise OperatorError(
        "this installation holds no sample project", code="no-sample", hint="install changeover again with pip"
    )


def _copy_sample(target: Path) -> list[str]:
    source = sample_folder()
    names = [name for name in SAMPLE if (source / name).exists()]
    existing = [name for name in names if (target / name).exists() or (target / name).is_symlink()]
    if existing:
        raise Conflict(
            f"{target} already holds {', '.join(existing)}; nothing was written",
            code="exists",
            hint="name an empty folder, such as `changeover init my-desk`",
        )
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            _copy(source / name, target / name)
        if not (target / ".gitignore").exists():
            (target / ".gitignore").write_text(IGNORED, encoding="utf-8")
            names.append(".gitignore")
    except OSError as error:
        raise OperatorError(
            f"cannot write to {target}: {error.strerror or error}", code="not-writable", hint="name another folder"
        ) from None
    return names


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
    else:
        shutil.copyfile(source, target)


def find_problems(folder: Path) -> list[Problem]:
    from changeover.project.environment import environment_of
    from changeover.rollout.folder import settings_file
    from changeover.settings import environment, setting
    from changeover.versions.snapshot import problems_of, take

    requirements = setting("requirements", settings_file(folder))
    return problems_of(take(folder), environment_of(folder, environment()), requirements)


def _summary(errors: int, warnings: int) -> str:
    if not errors and not warnings:
        return "no problems"
    return f"{_count(errors, 'problem')}, {_count(warnings, 'warning')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _kind(word: str, known: list[str]) -> str:
    for name in known:
        if word in (name, name.removesuffix(".yaml")):
            return name
    words = ", ".join(name.removesuffix(".yaml") for name in known)
    raise NotFound(f"there is no schema '{word}'", code="unknown-schema", hint=f"the schemas are: {words}")


def _write_schemas(folder: Path, schemas: dict[str, dict[str, Any]]) -> dict[str, Path]:
    files = {name: folder / f"{name.removesuffix('.yaml')}.schema.json" for name in schemas}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in files.items():
            text = json.dumps(schemas[name], ensure_ascii=False, indent=2)
            file.write_text(f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise OperatorError(
            f"cannot write to {folder}: {error.strerror or error}", code="not-writable", hint="name another folder"
        ) from None
    return files


def _explain_schemas(files: dict[str, Path]) -> None:
    associations = {str(file): glob for name, file in files.items() if (glob := _EDITOR_GLOBS.get(name))}
    first = next(iter(files.values()))
    output.line()
    output.line("in an editor with the YAML language server, begin a file with")
    output.line(f"  # yaml-language-server: $schema={first}")
    if associations:
        output.line("or, in VS Code with its YAML extension, say in .vscode/settings.json")
        output.line(f'  "yaml.schemas": {json.dumps(associations)}')


def _shell(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
