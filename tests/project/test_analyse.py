"""Each rule of a project's files: its code, its line and its column."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from changeover.project.check import analyse
from changeover.project.problems import Problem

AGENTS = "models: {m: {model: demo:rules}}\nagents:\n  a: {model: m}\n"


def problems(files: Mapping[str, str | bytes], env: Mapping[str, str] | None = None) -> list[Problem]:
    raw = {path: text if isinstance(text, bytes) else text.encode() for path, text in files.items()}
    return analyse(raw, env or {})[1]


def brief(found: list[Problem]) -> list[str]:
    return [f"{each.path}:{each.line}:{each.column} {each.code}" for each in found]


def agents(text: str, **more: str) -> dict[str, str]:
    return {"agents.yaml": "models: {m: {model: demo:rules}}\nagents:\n" + text, **more}


def graph(text: str) -> dict[str, str]:
    return {"agents.yaml": AGENTS, "graphs/g.yaml": text, "graphs/n.py": "async def f(s): ...\ndef sync(s): ...\n"}


EDGES = "edges: [{from: START, to: n}, {from: n, to: END}]\n"
NODE = "state: {k: str}\nnodes:\n  n: {python: graphs.n:f}\n"

CASES: list[tuple[str, dict[str, str], list[str]]] = [
    ("yaml-syntax", {"agents.yaml": "agents:\n\t- x\n"}, ["agents.yaml:2:1 yaml-syntax"]),
    ("two documents", {"agents.yaml": AGENTS + "---\na: 1\n"}, ["agents.yaml:4:1 yaml-syntax"]),
    (
        "tag",
        {"agents.yaml": AGENTS + "x: !!python/name:os.system y\n"},
        ["agents.yaml:4:1 unknown-key", "agents.yaml:4:4 yaml-syntax"],
    ),
    ("duplicate-key", agents("  a: {model: m, model: m}\n"), ["agents.yaml:3:17 duplicate-key"]),
    ("not a mapping", {"agents.yaml": "- a\n"}, ["agents.yaml:1:1 wrong-type"]),
    ("missing-key", agents("  a: {description: x}\n"), ["agents.yaml:3:3 missing-key"]),
    ("wrong-type", agents("  a: {model: m, tools: x}\n"), ["agents.yaml:3:24 wrong-type"]),
    ("bad-name", agents("  a b: {model: m}\n"), ["agents.yaml:3:3 bad-name"]),
    ("unknown-key", agents("  a: {modle: m}\n"), ["agents.yaml:3:3 missing-key", "agents.yaml:3:7 unknown-key"]),
    ("unknown-key of a file", {"agents.yaml": AGENTS + "agentz: {}\n"}, ["agents.yaml:4:1 unknown-key"]),
    ("unknown-model", agents("  a: {model: fast}\n"), ["agents.yaml:3:14 unknown-model"]),
    ("unknown-model by default", agents("  a: {model: '${M:-fast}'}\n"), ["agents.yaml:3:14 unknown-model"]),
    (
        "unknown fallback",
        {"agents.yaml": "models: {m: {model: 'demo:rules', fallbacks: [n]}}\nagents: {a: {model: m}}\n"},
        ["agents.yaml:1:47 unknown-model"],
    ),
    ("unknown-tool", agents("  a: {model: m, tools: [t]}\n"), ["agents.yaml:3:25 unknown-tool"]),
    ("unknown server", agents("  a: {model: m, tools: ['s/*']}\n"), ["agents.yaml:3:25 unknown-tool"]),
    ("unknown-prompt", agents("  a: {model: m, prompt: p}\n"), ["agents.yaml:3:25 unknown-prompt"]),
    ("unknown-middleware", agents("  a: {model: m, middleware: [zz]}\n"), ["agents.yaml:3:30 unknown-middleware"]),
    (
        "argument of a middleware",
        agents("  a: {model: m, middleware: [{model_call_limit: {run_limt: 1}}]}\n"),
        ["agents.yaml:3:50 unknown-key"],
    ),
    (
        "model of a middleware",
        agents("  a: {model: m, middleware: [{summarization: {model: x}}]}\n"),
        ["agents.yaml:3:54 unknown-model"],
    ),
    (
        "unknown-agent",
        {"agents.yaml": AGENTS, "tools.yaml": "tools: {t: {agent: b}}\n"},
        ["tools.yaml:1:20 unknown-agent"],
    ),
    ("one-kind", {"agents.yaml": AGENTS, "tools.yaml": "tools: {t: {description: b}}\n"}, ["tools.yaml:1:9 one-kind"]),
    ("env-missing", agents("  a: {model: '${MODEL}'}\n"), ["agents.yaml:3:15 env-missing"]),
    (
        "secret-literal",
        {
            "agents.yaml": "models: {m: {model: 'openai:y', params: {api_key: sk-abcdefghijklmnopqrstuvwx}}}\n"
            "agents: {a: {model: m}}\n"
        },
        ["agents.yaml:1:51 secret-literal"],
    ),
    ("duplicate-name", {"agents.yaml": AGENTS, "graphs/a.py": "graph = 1\n"}, ["graphs/a.py:0:0 duplicate-name"]),
    ("two variants", {"agents.yaml": AGENTS, "agents.json": "{}"}, ["agents.json:0:0 duplicate-name"]),
    ("reserved-name", agents("  runs: {model: m}\n"), ["agents.yaml:3:3 reserved-name"]),
    ("no-agents", {"tools.yaml": "tools: {}\n"}, ["agents.yaml:0:0 no-agents"]),
    ("empty agents.yaml", {"agents.yaml": "", "graphs/g.py": "graph = 1\n"}, ["agents.yaml:0:0 no-agents"]),
    (
        "import: syntax",
        {"agents.yaml": AGENTS, "graphs/n.py": "x = 1\ndef f(:\n"},
        ["graphs/n.py:2:7 import"],
    ),
    (
        "import: module",
        {"agents.yaml": AGENTS, "tools.yaml": "tools: {t: {python: graphs.x:f}}\n"},
        ["tools.yaml:1:21 import"],
    ),
    (
        "import: attribute",
        {"agents.yaml": AGENTS, "tools.yaml": "tools: {t: {python: graphs.x:f}}\n", "graphs/x.py": "def g(): ...\n"},
        ["tools.yaml:1:21 import"],
    ),
    (
        "forbidden-ref",
        {"agents.yaml": AGENTS, "tools.yaml": "tools: {t: {python: os:system}}\n"},
        ["tools.yaml:1:21 forbidden-ref"],
    ),
    (
        "forbidden-ref through a module",
        {
            "agents.yaml": AGENTS,
            "tools.yaml": "tools: {t: {python: graphs.x:os.system}}\n",
            "graphs/x.py": "import os\n",
        },
        ["tools.yaml:1:21 forbidden-ref"],
    ),
    (
        "agents in a circle",
        agents("  a: {model: m, tools: [t]}\n", **{"tools.yaml": "tools: {t: {agent: a}}\n"}),
        ["agents.yaml:3:25 cycle"],
    ),
    (
        "fallbacks in a circle",
        {"agents.yaml": "models: {m: {model: 'demo:rules', fallbacks: [m]}}\nagents: {a: {model: m}}\n"},
        ["agents.yaml:1:47 cycle"],
    ),
    (
        "prompt-variable",
        agents(
            "  a: {model: m, prompt: p}\n",
            **{"prompts/p.md": "---\nvariables: {a: {default: 1}}\n---\n{{ a }}\n{{ b }}\n"},
        ),
        ["prompts/p.md:5:4 prompt-variable"],
    ),
    (
        "prompt-variable in an include",
        agents(
            "  a: {model: m, prompt: p}\n",
            **{"prompts/p.md": "{% include 's/t.md' %}", "prompts/s/t.md": "x {{ y|upper }}"},
        ),
        ["prompts/s/t.md:1:6 prompt-variable"],
    ),
    (
        "prompt-variable without a default",
        agents("  a: {model: m, prompt: p}\n", **{"prompts/p.md": "---\nvariables: {a: {}}\n---\n{{ a }}\n"}),
        ["prompts/p.md:4:4 prompt-variable"],
    ),
    (
        "template syntax",
        agents("  a: {model: m, prompt: p}\n", **{"prompts/p.md": "ok\n{% if %}"}),
        ["prompts/p.md:2:1 prompt-variable"],
    ),
    (
        "unknown include",
        agents("  a: {model: m, prompt: p}\n", **{"prompts/p.md": '{% include "x.md" %}'}),
        ["prompts/p.md:1:13 unknown-prompt"],
    ),
    (
        "prompts in a circle",
        agents("  a: {model: m, prompt: p}\n", **{"prompts/p.md": '{% include "p.md" %}'}),
        ["prompts/p.md:1:13 cycle"],
    ),
    ("prompt in YAML", agents("  a: {model: m, prompt: {text: 'Hi {{ x }}'}}\n"), ["agents.yaml:3:32 prompt-variable"]),
    ("graph: empty", graph(""), ["graphs/g.yaml:0:0 wrong-type"]),
    ("graph: one-kind", graph("state: {k: str}\nnodes:\n  n: {defer: true}\n" + EDGES), ["graphs/g.yaml:3:3 one-kind"]),
    (
        "graph: two kinds",
        graph("state: {k: str}\nnodes:\n  n: {agent: a, interrupt: x}\n" + EDGES),
        ["graphs/g.yaml:3:3 one-kind"],
    ),
    ("graph: agent", graph("state: {k: str}\nnodes:\n  n: {agent: b}\n" + EDGES), ["graphs/g.yaml:3:14 unknown-agent"]),
    ("graph: graph", graph("state: {k: str}\nnodes:\n  n: {graph: b}\n" + EDGES), ["graphs/g.yaml:3:14 unknown-graph"]),
    ("graph: in itself", graph("state: {k: str}\nnodes:\n  n: {graph: g}\n" + EDGES), ["graphs/g.yaml:3:14 cycle"]),
    (
        "graph: tools",
        graph("state: {k: str}\nnodes:\n  n: {tools: [t]}\n" + EDGES),
        ["graphs/g.yaml:3:15 unknown-tool"],
    ),
    (
        "sync-timeout",
        graph("state: {k: str}\nnodes:\n  n: {python: graphs.n:sync, timeout: 5}\n" + EDGES),
        ["graphs/g.yaml:3:39 sync-timeout"],
    ),
    (
        "unknown-target",
        graph(NODE + "edges:\n  - {from: START, to: n}\n  - {from: n, to: m}\n"),
        ["graphs/g.yaml:6:19 unknown-target"],
    ),
    (
        "unknown-target of a handoff",
        graph("state: {k: str}\nnodes:\n  n: {agent: a, handoffs: [m]}\n" + EDGES),
        ["graphs/g.yaml:3:28 unknown-target"],
    ),
    (
        "unknown-target of a breakpoint",
        graph(NODE + EDGES + "interrupt_before: [m]\n"),
        ["graphs/g.yaml:5:20 unknown-target"],
    ),
    ("dead-end", graph(NODE + "edges: [{from: START, to: n}]\n"), ["graphs/g.yaml:3:3 dead-end"]),
    ("nothing starts", graph(NODE + "edges: [{from: n, to: END}]\n"), ["graphs/g.yaml:4:1 unreachable-node"]),
    (
        "unreachable-node",
        graph(NODE + "  m: {agent: a}\nedges: [{from: START, to: n}, {from: [n, m], to: END}]\n"),
        ["graphs/g.yaml:4:3 unreachable-node"],
    ),
    (
        "switch-no-else",
        graph(NODE + "edges:\n  - {from: START, to: n}\n  - {from: n, switch: k, to: {true: END}}\n"),
        ["graphs/g.yaml:6:30 switch-no-else"],
    ),
    (
        "state key of a switch",
        graph(NODE + "edges:\n  - {from: START, to: n}\n  - {from: n, switch: z, to: {else: END}}\n"),
        ["graphs/g.yaml:6:23 unknown-state-key"],
    ),
    (
        "state key of save",
        graph("state: {k: str}\nnodes:\n  n: {interrupt: 'Go on?', save: z}\n" + EDGES),
        ["graphs/g.yaml:3:34 unknown-state-key"],
    ),
    (
        "variable of an interrupt",
        graph("state: {k: str}\nnodes:\n  n: {interrupt: 'Go {{ z }}?', save: k}\n" + EDGES),
        ["graphs/g.yaml:3:18 prompt-variable"],
    ),
    ("bad-type", graph(NODE.replace("str", "sting") + EDGES), ["graphs/g.yaml:1:12 bad-type"]),
    (
        "bad-reducer",
        graph("state: {k: {type: list[str], reducer: apend}}\nnodes:\n  n: {python: graphs.n:f}\n" + EDGES),
        ["graphs/g.yaml:1:39 bad-reducer"],
    ),
    ("a node named as a key", graph(NODE.replace("{k:", "{n:") + EDGES), ["graphs/g.yaml:3:3 duplicate-name"]),
    (
        "include",
        {"agents.yaml": AGENTS, "changeover.yaml": "include: [../x]\n"},
        ["changeover.yaml:1:11 forbidden-path"],
    ),
]


@pytest.mark.parametrize(("files", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_mistake_has_its_code_and_its_place(files: dict[str, str], expected: list[str]) -> None:
    assert brief(problems(files)) == expected


def test_all_mistakes_are_told_at_once() -> None:
    found = problems(agents("  a: {model: x, tools: [t], prompt: p, extra: 1}\n  b: {}\n"))
    codes = sorted(each.code for each in found)
    assert codes == ["missing-key", "unknown-key", "unknown-model", "unknown-prompt", "unknown-tool"]


def test_a_near_name_is_offered() -> None:
    files = agents("  a: {model: m, tools: [lookup_ordr]}\n", **{"tools.yaml": "tools: {lookup_order: {agent: a}}\n"})
    unknown = next(each for each in problems(files) if each.code == "unknown-tool")
    assert unknown.render() == (
        "agents.yaml:3:25 error[unknown-tool] agent 'a': tool 'lookup_ordr' is not in tools.yaml\n"
        "    3 |   a: {model: m, tools: [lookup_ordr]}\n"
        "      |                         ^^^^^^^^^^^ did you mean 'lookup_order'?"
    )


def test_a_secret_is_quoted_nowhere() -> None:
    secret = "sk-abcdefghijklmnopqrstuvwx"
    files = agents(f"  a: {{model: m, config: {{api_key: {secret}}}, wrong: 1}}\n")
    found = problems(files)
    assert {"secret-literal", "unknown-key"} == {each.code for each in found}
    assert not any(secret in str(each.to_json()) for each in found)


def test_the_environment_decides_which_model_is_meant() -> None:
    files = agents("  a: {model: '${M:-m}'}\n")
    assert problems(files) == []
    assert problems(files, {"M": "openai:gpt-5-mini"}) == []
    assert brief(problems(files, {"M": "other"})) == ["agents.yaml:3:14 unknown-model"]


def test_context_keys_are_variables_of_the_prompt() -> None:
    files = agents(
        "  a: {model: m, prompt: p, context: {tenant: str}}\n",
        **{"prompts/p.md": "{{ tenant }}{% include 'b.md' %}", "prompts/b.md": "{{ tenant }}"},
    )
    assert problems(files) == []


def test_a_route_without_targets_may_lead_anywhere() -> None:
    text = NODE + "  m: {agent: a}\nedges: [{from: START, route: graphs.n:sync}, {from: [n, m], to: END}]\n"
    assert problems(graph(text)) == []


def test_destinations_and_handoffs_are_edges() -> None:
    text = (
        "state: {k: str}\nnodes:\n  n: {python: graphs.n:f, destinations: [m, END]}\n"
        "  m: {agent: a, handoffs: [o]}\n  o: {agent: a}\nedges: [{from: START, to: n}, {from: o, to: END}]\n"
    )
    assert problems(graph(text)) == []


def test_what_requirements_and_langchain_hold_may_be_named() -> None:
    files = {
        "agents.yaml": AGENTS,
        "tools.yaml": "tools: {a: {python: yaml:dump}, b: {python: langchain_core.tools:tool}, c: {python: my_pkg:x}}",
        "requirements.txt": "PyYAML>=6 # yaml\nmy-pkg==1\n-r other.txt\n",
    }
    assert [found.code for found in problems(files)] == ["requirement-missing", "requirement-option"]


@pytest.mark.parametrize("suffix", [".yml", ".json"])
def test_other_suffixes_are_read_too(suffix: str) -> None:
    text = '{"models": {"m": {"model": "demo:rules"}},\n\t"agents": {"a": {"model": "m"}, "b": {"model": "x"}}}'
    assert brief(problems({f"agents{suffix}": text})) == [f"agents{suffix}:2:49 unknown-model"]


def test_graphs_alone_are_a_project() -> None:
    project, found = analyse({"graphs/x.py": b"graph = object()\n", "graphs/helper.py": b"x = 1\n"}, {})
    assert found == []
    assert project.names == ("x",)


def test_deleting_agents_names_every_use_of_them() -> None:
    found = problems({"graphs/g.yaml": "state: {k: str}\nnodes:\n  n: {agent: a}\n" + EDGES, "prompts/p.md": "x"})
    assert brief(found) == ["agents.yaml:0:0 no-agents", "graphs/g.yaml:3:14 unknown-agent"]


def test_two_hundred_agents_are_checked_quickly() -> None:
    files = _many(200)
    analyse(files, {})  # imports langchain's middleware once
    times = []
    for _ in range(5):
        start = time.perf_counter()
        assert analyse(files, {})[1] == []
        times.append(time.perf_counter() - start)
    assert min(times) < 0.5  # a few hundredths; the bound is for a machine that is busy


def test_two_thousand_agents_that_are_all_wrong_are_told() -> None:
    files = {path: content for path, content in _many(2_000).items() if path in ("agents.yaml", "tools.yaml")}
    start = time.perf_counter()
    found = analyse(files, {})[1]
    assert len(found) == 1_000
    assert time.perf_counter() - start < 30


def _many(count: int) -> dict[str, bytes]:
    rows = [
        f"  a{i}: {{model: m, prompt: p{i}, tools: [t{i}], middleware: [{{model_call_limit: {{run_limit: 3}}}}]}}\n"
        for i in range(count)
    ]
    tools = "tools:\n" + "".join(f"  t{i}: {{python: graphs.n:f{i}}}\n" for i in range(count))
    prompt = "---\nvariables: {company: {default: Acme}}\n---\nYou work for {{ company }}.\n{% include 's/t.md' %}\n"
    files = {"agents.yaml": agents("".join(rows))["agents.yaml"].encode(), "tools.yaml": tools.encode()}
    files |= {f"prompts/p{i}.md": prompt.encode() for i in range(count)}
    files["graphs/n.py"] = "".join(f"def f{i}(): ...\n" for i in range(count)).encode()
    return files | {"prompts/s/t.md": b"Be kind.\n"}


def test_the_sample_has_no_problems(sample: Path) -> None:
    files = {path.relative_to(sample).as_posix(): path.read_bytes() for path in sample.rglob("*") if path.is_file()}
    project, found = analyse(files, {})
    assert found == []
    assert {"support", "billing", "helpdesk"} <= set(project.names)
