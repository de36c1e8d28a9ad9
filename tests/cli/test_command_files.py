"""`init`, `check`, `schema`, `doctor`: verbs that need no server."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest


def test_init_writes_a_project_without_problems(call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    started = call("init", "my desk")
    assert started.status == 0
    assert "cd 'my desk' && changeover check" in started.out
    assert not list((tmp_path / "my desk").rglob("__pycache__"))
    assert call("check", "my desk").out == "no problems\n"


def test_init_overwrites_nothing(call, tmp_path: Path) -> None:
    (tmp_path / "tools.yaml").write_text("mine")
    refused = call("init", str(tmp_path), "-o", "json")
    assert refused.status == 5
    assert "already holds tools.yaml" in refused.err
    assert json.loads(refused.out)["error"]["code"] == "exists"
    assert [path.name for path in tmp_path.iterdir()] == ["tools.yaml"]
    assert (tmp_path / "tools.yaml").read_text() == "mine"


LANGGRAPH = '{"dependencies": ["."], "graphs": {"my desk": "./desk.py:graph"}}'


def test_init_from_a_langgraph_file_adds_agents_beside_it(call, project) -> None:
    folder = project({"langgraph.json": LANGGRAPH, "desk.py": "graph = None\n"})
    added = call("init", "--from", str(folder / "langgraph.json"))
    assert (added.status, added.err) == (0, "")
    assert "wrote agents.yaml" in added.out
    assert (folder / "langgraph.json").read_text() == LANGGRAPH
    text = (folder / "agents.yaml").read_text()
    assert "my desk" in text
    assert call("check", str(folder)).status == 0
    above, _, below = text.partition("agents: {}\n")
    uncommented = "".join(line.replace("  # ", "  ", 1) for line in below.splitlines(keepends=True))
    (folder / "agents.yaml").write_text(f"{above}agents:\n{uncommented}")  # as the text itself advises
    assert "helper:" in uncommented
    assert call("check", str(folder)).status == 0


def test_init_from_a_langgraph_file_overwrites_nothing(call, project, tmp_path: Path) -> None:
    folder = project({"langgraph.json": LANGGRAPH, "agents.yml": "agents: {}\n"})
    refused = call("init", "--from", str(folder))
    assert refused.status == 5
    assert "already holds agents.yml" in refused.err
    assert not (folder / "agents.yaml").exists()
    (folder / "agents.yml").unlink()
    assert call("init", str(tmp_path / "elsewhere"), "--from", str(folder)).status == 2
    assert call("init", "--from", str(folder / "desk.json")).status == 2
    (folder / "langgraph.json").write_text('{"graphs": ')
    broken = call("init", "--from", str(folder))
    assert broken.status == 1
    assert "langgraph.json:1:12" in broken.err
    (folder / "langgraph.json").unlink()
    assert call("init", "--from", str(folder)).status == 4
    assert not (folder / "agents.yaml").exists()


def test_check_prints_positions_as_a_compiler_does(call, project) -> None:
    folder = project(
        {
            "agents.yaml": """\
                models: {demo: {model: "demo:rules"}}
                agents:
                  support:
                    model: demo
                    prompt: {text: Hello}
                    tools: [lookup_ordr]
                """,
            "tools.yaml": "tools: {lookup_order: {python: 'graphs.orders:lookup_order'}}\n",
            "graphs/orders.py": "raise RuntimeError('check must not run this')\n",
            "changeover.yaml": "watch: {quiet: 100ms, sleep: 3}\n",
        }
    )
    found = call("check", str(folder))
    assert found.status == 1
    assert "agents.yaml:6:13 error[unknown-tool]" in found.out
    assert "did you mean 'lookup_order'?" in found.out
    assert "changeover.yaml:1:" in found.out
    assert not (folder / ".changeover").exists()
    problems = json.loads(call("-o", "json", "check", str(folder)).out)["problems"]
    assert ("unknown-tool", "agents.yaml", 6) in {(one["code"], one["path"], one["line"]) for one in problems}


def test_check_of_a_missing_folder_is_one_sentence(call, tmp_path: Path) -> None:
    missing = call("check", str(tmp_path / "nowhere"))
    assert missing.status == 2
    assert "nowhere" in missing.err
    assert "Traceback" not in missing.err


def test_check_takes_values_from_the_environment_file(call, project) -> None:
    files = {"agents.yaml": "agents: {support: {model: '${DESK_MODEL}', prompt: {text: Hello}}}\n"}
    folder = project(files)
    assert "env-missing" in call("check", str(folder)).out
    project({".env": "DESK_MODEL=demo:rules\n"})
    assert call("check", str(folder)).status == 0


def test_schema_is_one_document_or_files_for_an_editor(call, tmp_path: Path) -> None:
    kinds = {"agents.yaml", "tools.yaml", "graph", "prompt", "changeover.yaml", "migration"}
    assert set(json.loads(call("schema").out)) == kinds
    assert "agents" in json.loads(call("schema", "agents").out)["properties"]
    assert call("schema", "agent").status == 4
    written = call("schema", "--write", str(tmp_path / "schemas"))
    assert "yaml-language-server: $schema=" in written.out
    for file in (tmp_path / "schemas").iterdir():
        json.loads(file.read_text())


def test_doctor_shows_each_setting_with_its_source(call, sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sample / "changeover.yaml").write_text("server: {port: 0}\n")
    monkeypatch.setenv("CHANGEOVER_WATCH", "off")
    monkeypatch.setenv("CHANGEOVER_TOKEN", "hush-hush")
    seen = call("doctor", str(sample), "-o", "json")
    assert seen.status == 0, seen
    told = json.loads(seen.out)
    sources = {row["setting"]: (row["value"], row["source"]) for row in told["settings"]}
    assert sources["server.port"] == (0, "file")
    assert sources["watch.auto"] == ("off", "environment")
    assert sources["server.host"][1] == "default"
    assert "hush-hush" not in seen.out
    assert "server.port" in call("doctor", str(sample)).out
    assert not (sample / ".changeover").exists()


def test_doctor_names_a_setting_that_cannot_be(call, sample: Path) -> None:
    (sample / "changeover.yaml").write_text("server: {port: yes}\n")
    seen = call("doctor", str(sample))
    assert seen.status == 1
    assert "server.port" in seen.out


def test_doctor_says_whether_a_postgres_is_reached(call, sample: Path, postgres_url: str) -> None:
    def told(address: str) -> dict[str, str]:
        document = json.loads(call("doctor", str(sample), "--database", address, "-o", "json").out)
        (found,) = [one for one in document["checks"] if one["check"] == "database"]
        return dict(found)

    right = told(postgres_url)
    assert right["state"] == "ok"
    assert "first start" in right["detail"]
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        found = connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname = 'changeover'").fetchone()
    assert found == (0,), "a look makes nothing"
    away = told("postgresql://u:s3cret@127.0.0.1:1/x")
    assert away["state"] == "problem"
    assert "cannot be reached" in away["detail"]
    assert "s3cret" not in str(away)
