"""`init --from langgraph.json`: agents beside the graphs of a project that was written for LangGraph's server.

Owns the agents.yaml that is written. The langgraph.json stays as it is, and so does everything else of the project.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from changeover.errors import Conflict, InvalidRequest, NotFound, OperatorError, ProjectError
from changeover.project.document import read
from changeover.project.langgraph import LANGGRAPH_FILE, without_values
from changeover.project.validate import shown

AGENTS_FILES = ("agents.yaml", "agents.yml", "agents.json")
FILE_LIMIT_BYTES = 5_000_000
TEMPLATE = """\
# Agents beside the graphs of langgraph.json ({graphs}).
#
# Those are served as they stand and need nothing from this file. What is written here is served as well, each agent
# under its name. Save this file while it is served and the next answer uses it.

models:
  # The built-in demonstration model: no key, no network, explicit rules.
  demo: {{model: "demo:rules"}}
  # A real one. Its key comes from the environment, or from the `env` of langgraph.json:
  # fast: {{model: openai:gpt-5-mini, params: {{api_key: "${{OPENAI_API_KEY}}", timeout: 30}}}}

# Take out the braces and the comment signs for a first agent:
agents: {{}}
  # {agent}:
  #   description: Answers what the graphs do not
  #   model: demo                 # a name from models, or provider:model
  #   prompt: {{text: "You answer in one sentence."}}       # or a name: prompts/NAME.md
  #   tools: []                   # names from tools.yaml, such as  lookup: {{python: my_package.orders:lookup}}
"""


def add_agents(file: Path, folder: Path | None) -> Path:
    """Write an agents.yaml beside a langgraph.json. Raises where there is one, and what is wrong with the file."""
    source = (file / LANGGRAPH_FILE if file.is_dir() else file).absolute()
    if source.name != LANGGRAPH_FILE:
        raise InvalidRequest(
            f"'{file}' is not called {LANGGRAPH_FILE}",
            code="usage",
            hint=f"a project's file has the name {LANGGRAPH_FILE}",
        )
    if folder is not None and folder.resolve() != source.parent.resolve():
        raise InvalidRequest(
            f"agents.yaml goes beside {source}, not into {folder}",
            code="usage",
            hint="name the file or the folder alone",
        )
    graphs = _graphs(source)
    existing = [name for name in AGENTS_FILES if (source.parent / name).exists() or (source.parent / name).is_symlink()]
    if existing:
        raise Conflict(
            f"{source.parent} already holds {existing[0]}; nothing was written",
            code="exists",
            hint="a project has one such file: add your agents there",
        )
    target = source.parent / AGENTS_FILES[0]
    try:
        with target.open("x", encoding="utf-8") as stream:
            stream.write(TEMPLATE.format(graphs=_listed(graphs), agent=_free_name(graphs)))
    except FileExistsError:
        raise Conflict(f"{target} is there already; nothing was written", code="exists", hint="add to it") from None
    except OSError as error:
        message = f"cannot write {target}: {error.strerror or error}"
        raise OperatorError(message, code="not-writable", hint="look at the rights of the folder") from None
    return target


def _graphs(source: Path) -> Sequence[str]:
    try:
        with source.open("rb") as stream:
            content = stream.read(FILE_LIMIT_BYTES)
    except FileNotFoundError:
        raise NotFound(f"there is no file {source}", code="no-file", hint="name a langgraph.json") from None
    except OSError as error:
        raise OperatorError(f"cannot read {source}: {error.strerror or error}", code="unreadable") from None
    document = read(LANGGRAPH_FILE, content)
    if document.problems:
        raise ProjectError(without_values(document.problems, document.text))
    graphs = document.data.get("graphs") if isinstance(document.data, dict) else None
    if not isinstance(graphs, dict):
        raise ProjectError([document.problem("no-graphs", "it names no graphs", hint="it is no file of LangGraph")])
    return list(graphs)


def _listed(graphs: Sequence[str]) -> str:
    words = [shown("".join(letter if letter.isprintable() else "?" for letter in name)) for name in graphs[:8]]
    return ", ".join(words) + (f" and {len(graphs) - 8} more" if len(graphs) > 8 else "") or "none yet"


def _free_name(graphs: Sequence[str]) -> str:
    return next(
        name for name in ("helper", "assistant", *map("helper_{}".format, range(2, 10**6))) if name not in graphs
    )
