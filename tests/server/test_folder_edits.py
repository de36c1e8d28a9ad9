"""Files of the folder through the server: looked at, given with a request, and saved, all of them or none."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_samples import DEADLINE_S, LOCAL

from changeover import GraphVersionManager, create_app
from changeover.errors import Conflict
from changeover.versions.edits import FolderEdits
from changeover.versions.tree import SnapshotLimits

Eventually = Callable[..., Awaitable[Any]]

AGENTS = """\
models: {demo: {model: "demo:rules", params: {rules: []}}}
agents:
  support: {model: demo, prompt: support}
  billing: {model: demo, prompt: billing}
"""
ONE, TWO = "prompts/support.md", "prompts/billing.md"
GRABS = (  # the settings are read in all of these, so that the rules have to be as well
    "edit: {python: true}\n",
    "edit:\t{python: true}\n",
    "edit: {python: true}\nwatch: {quiet: 2001-99-99}\n",
    "#" * 300_000 + "\nedit: {python: true}\n",
)
JSON = {"Content-Type": "application/json"}
BEFORE = {ONE: "You are support.\n", TWO: "You are billing.\n"}
AFTER = {ONE: "You are new support.\n", TWO: "You are new billing.\n", "prompts/shared/tone.md": "Be kind.\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return written(tmp_path / "project")


def written(folder: Path) -> Path:
    for path, text in {"agents.yaml": AGENTS, **BEFORE}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@asynccontextmanager
async def asked(folder: Path, **settings: Any) -> AsyncIterator[tuple[GraphVersionManager, httpx.AsyncClient]]:
    async with GraphVersionManager.open(folder, **settings) as manager:
        await manager.serve_folder()
        transport = httpx.ASGITransport(create_app(manager))
        async with httpx.AsyncClient(transport=transport, base_url=LOCAL, timeout=DEADLINE_S) as client:
            yield manager, client


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def contents(folder: Path) -> dict[str, str]:
    return {path: (folder / path).read_text() for path in AFTER if (folder / path).exists()}


async def write(client: httpx.AsyncClient, files: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    return await client.post(
        "/admin/versions", json={"files": AFTER if files is None else files, "write": True, **more}
    )


async def test_what_is_written_is_in_the_folder_and_serves_when_somebody_switches(folder: Path) -> None:
    (folder / ONE).chmod(0o640)
    async with asked(folder) as (_, client):
        built = await write(client, message="kinder")
        assert (built.status_code, built.json()["status"]) == (201, "ready"), built.text
        assert contents(folder) == AFTER
        assert stat.S_IMODE((folder / ONE).stat().st_mode) == 0o640
        status = (await client.get("/admin/status")).json()
        assert (status["routing"]["current"], status["folder"]["version"]) == ("v1", built.json()["id"])
        assert (await client.post("/admin/versions", json={})).json()["id"] == built.json()["id"]
        again = await write(client)
        assert (again.status_code, again.json()["id"]) == (200, "v2")
    assert [path.name for path in (folder / ".changeover/edits").iterdir() if path.is_dir()] == []


async def test_a_watcher_takes_what_is_written_for_no_save(folder: Path, eventually: Eventually) -> None:
    async with asked(folder, watch_quiet_s=0.05) as (manager, client):
        await manager.watch("promote")
        assert (await write(client)).json()["id"] == "v2"
        (folder / TWO).write_text("A person was here.\n")  # what the watcher sees after it has passed the write by

        async def current() -> bool:
            return bool((await client.get("/admin/routing")).json()["current"] == "v3")

        await eventually(current)
        moves = (await client.get("/admin/history")).json()["history"]
        assert [move["to"] for move in moves] == ["v3", "v1"]
        authors = {one["id"]: one["author"] for one in (await client.get("/admin/versions")).json()["versions"]}
        assert authors == {"v1": "server", "v2": "http", "v3": "watcher"}


async def test_what_is_written_while_a_save_is_promoted_is_no_save_after_it(folder: Path) -> None:
    async with asked(folder) as (manager, client):
        (folder / TWO).write_text("A person.\n")
        saved = await manager.folder.build_if_changed()  # as the watcher does, which promotes it now
        assert saved is not None
        assert (await write(client, {ONE: AFTER[ONE]})).json()["status"] == "ready"
        await manager.folder.dealt_with(saved.digest)
        assert await manager.folder.build_if_changed() is None


async def test_a_write_that_does_not_build_writes_nothing(folder: Path) -> None:
    async with asked(folder) as (_, client):
        refused = await write(client, {**AFTER, "agents.yaml": "agents: {x: {model: nobody}}\n"})
        assert (refused.status_code, refused.json()["code"]) == (422, "project-problems")
        assert contents(folder) == BEFORE
        assert (await client.get("/admin/status")).json()["folder"]["version"] == "v1"


async def test_a_file_that_is_not_what_its_editor_has_seen_is_not_written_over(folder: Path) -> None:
    async with asked(folder) as (_, client):
        seen = {ONE: sha256(BEFORE[ONE]), "prompts/shared/tone.md": None}
        (folder / ONE).write_text("Somebody else was faster.\n")
        (folder / "prompts/shared").mkdir()
        (folder / "prompts/shared/tone.md").write_text("Here too.\n")
        for more in ({"write": True}, {}):
            refused = await client.post("/admin/versions", json={"files": AFTER, "base": seen, **more})
            assert (refused.status_code, refused.json()["code"]) == (409, "file-changed")
            assert refused.json()["files"] == ["prompts/shared/tone.md", ONE]
        assert len((await client.get("/admin/versions")).json()["versions"]) == 1
        assert (folder / TWO).read_text() == BEFORE[TWO]
        seen = {file["path"]: file["sha256"] for file in (await client.get("/admin/folder/files")).json()["files"]}
        assert (await write(client, base=seen)).status_code == 201


async def test_an_edit_while_the_version_is_built_is_not_written_over(folder: Path) -> None:
    (folder / "graphs").mkdir()
    async with asked(folder) as (_, client):
        meanwhile = f"import pathlib\npathlib.Path({str(folder / TWO)!r}).write_text('A person.\\n')\n"
        tool = 'def look() -> str:\n    """Look."""\n    return ""\n'
        (folder / "graphs/slow.py").write_text(meanwhile + tool)
        (folder / "tools.yaml").write_text("tools: {look: {python: graphs.slow:look}}\n")
        (folder / "agents.yaml").write_text(AGENTS.replace("prompt: support", "prompt: support, tools: [look]"))
        refused = await write(client, {ONE: AFTER[ONE]})
        assert (refused.status_code, refused.json()["code"]) == (409, "file-changed"), refused.text
        assert (refused.json()["files"], refused.json()["version"]) == ([TWO], "v2")
        assert contents(folder) == {ONE: BEFORE[ONE], TWO: "A person.\n"}


HOSTILE = (
    "prompts/../x.md", "../agents.yaml", ".env", "prompts/.env", ".changeover/edits/x.yaml", "/etc/x.yaml",
    "prompts/out/x.md", "prompts/secret.md", "prompts/private/x.md", "prompts/code.md", "requirements.txt",
    "langgraph.json", ".gitignore", "graphs/nodes.py", "prompts/x.md\n", "prompts//x.md", "prompts/support.md/x.md",
    "prompts/alias.md", "prompts/tone.py", "prompts/.x.md.swp", "prompts/hidden.md", "prompts/again/x.md",
    "prompts/" + 2000 * "x" + ".md",
    "prompts/" + 300 * "x" + ".md", "prompts/\ud800.md",
)  # fmt: skip


async def test_hostile_places_are_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    async with asked(folder) as (_, client):
        (folder / "prompts/out").symlink_to(outside)
        (folder / "prompts/hidden.md").symlink_to("../.env")
        (folder / "graphs").mkdir()
        (folder / "graphs/nodes.py").write_text("x = 1\n")
        (folder / "prompts/code.md").symlink_to("../graphs/nodes.py")
        (folder / "prompts/alias.md").symlink_to("support.md")
        (folder / "prompts/shared").mkdir()
        (folder / "prompts/shared/tone.md").write_text("Be kind.\n")
        (folder / "prompts/again").symlink_to("shared")
        (folder / ".gitignore").write_text("prompts/secret.md\nprompts/private/\n")
        for path in HOSTILE:
            for call, more in (("versions", {"write": True}), ("versions", {}), ("check", {})):
                body = json.dumps({"files": {path: "x"}, **more})  # ASCII, whatever is in the path
                answer = await client.post(f"/admin/{call}", content=body, headers=JSON)
                assert answer.status_code == 422, (path, answer.text)
                assert answer.json()["code"] in ("file-not-editable", "invalid-request"), (path, answer.text)
    assert list(outside.iterdir()) == []
    assert (folder / "graphs/nodes.py").read_text() == "x = 1\n"
    assert not (folder / ".env").exists()


async def test_a_link_within_the_folder_stays_one(folder: Path) -> None:
    (folder / "texts").mkdir()
    (folder / ONE).rename(folder / "texts/support.md")
    (folder / ONE).symlink_to("../texts/support.md")
    async with asked(folder) as (_, client):
        built = await write(client, {ONE: "Linked.\n"})
        assert built.status_code == 201, built.text
        assert (folder / ONE).is_symlink()
        assert (folder / "texts/support.md").read_text() == "Linked.\n"
        assert (await client.get("/admin/status")).json()["folder"]["version"] == "v2"


async def test_python_only_where_the_operator_allows_it(folder: Path) -> None:
    code = {"graphs/deep/nodes.py": "def node(state: dict) -> dict:\n    return state\n"}
    async with asked(folder) as (_, client):
        refused = await write(client, code)
        assert (refused.status_code, refused.json()["code"]) == (422, "file-not-editable")
        assert "edit.python" in refused.json()["hint"]
        for text in GRABS:
            grab = await write(client, {"changeover.yaml": text})
            assert (grab.status_code, grab.json()["code"]) == (422, "file-not-editable"), text[-100:]
        assert (await write(client, {"changeover.yaml": "watch: {quiet: 200ms}\n"})).status_code == 200
    async with asked(folder, edit_python=True) as (_, client):
        assert (await write(client, code)).status_code == 201
        assert (folder / "graphs/deep/nodes.py").read_text() == code["graphs/deep/nodes.py"]


def test_a_folder_that_cannot_be_written_is_said_so(shared_folder: Path, as_nobody: Callable[[], Any]) -> None:
    folder = written(shared_folder / "project")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    (folder / "prompts").chmod(0o555)
    edits = FolderEdits(folder, SnapshotLimits())
    places = edits.places.demand([ONE])
    with as_nobody():
        with pytest.raises(Conflict, match="prompts") as early:  # before anything is built
            edits.demand_writable(sorted(places.values()))
        with (
            pytest.raises(Conflict, match=r"support\.md") as late,
            edits.writing({ONE: b"new"}, {ONE: sha256(BEFORE[ONE])}, "digest") as begun,
        ):
            edits.make(begun, undo={ONE: BEFORE[ONE].encode()})
    assert (early.value.code, late.value.code) == ("folder-not-writable", "folder-not-writable")
    assert not edits.pending()
    assert contents(folder) == BEFORE


async def test_what_cannot_be_written_to_the_end_is_taken_back(folder: Path) -> None:
    """The last of the renames fails: its folder is replaced by a file, of which nobody can say when."""
    async with asked(folder) as (_, client):
        renames = 0

        def on_rename(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal renames
            if event == "os.rename" and str(arguments[1]) in ("billing.md", "support.md") and armed:
                renames += 1
                if renames == 2:
                    raise OSError(28, "No space left on device")

        armed = True
        sys.addaudithook(on_rename)
        try:
            refused = await write(client)
        finally:
            armed = False
        assert (refused.status_code, refused.json()["code"]) == (409, "folder-not-writable"), refused.text
        assert contents(folder) == BEFORE
        assert (await client.get("/admin/status")).json()["folder"] == {
            "differs": False,
            "version": "v1",
            "problems": [],
        }
        assert (await write(client)).status_code == 200


KILLED = """
    import asyncio, json, os, signal, sys
    import httpx
    from changeover import GraphVersionManager, create_app

    def on_rename(event, arguments):
        global renames
        if event == "os.rename" and str(arguments[1]) in ("billing.md", "support.md", "tone.md"):
            if renames == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            renames += 1

    async def main():
        async with GraphVersionManager.open(sys.argv[1]) as manager:
            await manager.serve_folder()
            await manager.build(files=json.loads(sys.argv[3]), write=True)

    renames = 0
    sys.addaudithook(on_rename)
    asyncio.run(main())
"""


@pytest.mark.parametrize("renamed", [0, 1])
async def test_a_write_that_is_cut_off_is_finished_by_who_reads_next(folder: Path, renamed: int) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(folder), str(renamed), json.dumps(AFTER)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, timeout=60)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    changed = [path for path, text in contents(folder).items() if text != BEFORE.get(path)]
    assert len(changed) == renamed
    async with asked(folder) as (manager, client):
        await manager.watch("promote")
        assert contents(folder) == AFTER
        status = (await client.get("/admin/status")).json()
        assert (status["routing"]["current"], status["folder"]["version"]) == ("v1", "v2")
        assert await manager.folder.build_if_changed() is None  # to a watcher it is no save


async def test_the_folder_is_listed_as_a_version_would_take_it(folder: Path) -> None:
    (folder / ".env").write_text("KEY=s3cret\n")
    (folder / ".gitignore").write_text("prompts/secret.md\n")
    (folder / "prompts/secret.md").write_text("s3cret\n")
    (folder / "requirements.txt").write_text("langchain\n")
    (folder / "changeover.yaml").write_text("watch: {quiet: 200ms}\n")
    async with asked(folder, requirements="off") as (_, client):
        (folder / ONE).write_text("<script>alert(1)</script>")
        listed = {file["path"]: file for file in (await client.get("/admin/folder/files")).json()["files"]}
        assert listed.keys() == {"agents.yaml", "changeover.yaml", "requirements.txt", ONE, TWO}
        assert [path for path, file in listed.items() if not file["editable"]] == ["requirements.txt"]
        assert listed[TWO] == {"path": TWO, "sha256": sha256(BEFORE[TWO]), "size_bytes": 17, "editable": True}
        one = await client.get(f"/admin/folder/files/{ONE}")
        assert one.text == "<script>alert(1)</script>"
        assert one.headers["etag"] == f'"{sha256(one.text)}"'
        assert one.headers["content-type"] == "text/plain; charset=utf-8"
        assert one.headers["x-content-type-options"] == "nosniff"
        assert (await client.get("/admin/folder/files/changeover.yaml")).text == "watch: {quiet: 200ms}\n"
        for path in (".env", "prompts/secret.md", ".gitignore", "../x", ".changeover/changeover.db"):
            assert (await client.get(f"/admin/folder/files/{path}")).status_code == 404


async def test_what_may_be_a_secret_is_shown_to_nobody(folder: Path) -> None:
    alert = 'alerts:\t[{url: "https://h.example/s3cret", on: ["*"]}]\nwatch: {quiet: 200ms}\n'
    (folder / "changeover.yaml").write_text(alert)
    async with asked(folder) as (_, client):
        assert "changeover.yaml" not in (await client.get("/admin/folder/files")).text
        refused = await write(client, {"changeover.yaml": "watch: {quiet: 300ms}\n"})
        assert (refused.status_code, refused.json()["code"]) == (422, "file-not-editable")
    assert (folder / "changeover.yaml").read_text() == alert
