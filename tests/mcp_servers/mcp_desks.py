"""Projects whose agents use MCP servers of ours, and what those servers noted of who came and went."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PEER = Path(__file__).with_name("mcp_peer.py")
START_S = 20.0
ADD = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
ANYTHING: dict[str, Any] = {"type": "object", "properties": {}}


class Peer:
    """What the tests say to a server by its folder, and what it noted there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def opened(self) -> list[int]:
        return self._noted("opened")

    @property
    def closed(self) -> list[int]:
        return self._noted("closed")

    @property
    def lists(self) -> list[int]:
        return self._noted("lists")

    @property
    def children(self) -> list[int]:
        return self._noted("children")

    def offers(self, **tools: Mapping[str, Any]) -> None:
        """These tools with their schemas, from now on. In one step: it is read at any time."""
        listed = [{"name": name, "description": f"To {name}", "inputSchema": schema} for name, schema in tools.items()]
        new = self.folder / "tools.new"
        new.write_text(json.dumps(listed))
        new.replace(self.folder / "tools.json")

    def be(self, word: str, text: str = "") -> None:
        (self.folder / word).write_text(text)

    def be_no_more(self, word: str) -> None:
        (self.folder / word).unlink()

    def alive(self) -> list[int]:
        """Its processes that live, whoever their parent is."""
        return [pid for pid in set(self.opened) if lives(pid)]

    def _noted(self, name: str) -> list[int]:
        file = self.folder / name
        return [int(line) for line in file.read_text().split()] if file.exists() else []


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


def over_stdio(peer: Peer, **more: Any) -> str:
    """An entry of tools.yaml."""
    entry = {"transport": "stdio", "command": sys.executable, "args": [str(PEER), str(peer.folder)], **more}
    return json.dumps(entry)


def over_http(url: str, **more: Any) -> str:
    return json.dumps({"transport": "streamable_http", "url": url, **more})


@contextmanager
def serving_peer(peer: Peer, port: int | None = None) -> Iterator[str]:
    """The server over HTTP until the block ends; gives its address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # it was the port of one that is gone
        probe.bind(("127.0.0.1", port or 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(PEER), str(peer.folder), "--http", str(port)])
    url = f"http://127.0.0.1:{port}/mcp/"
    try:
        _wait_until_up(port)
        yield url
    finally:
        process.kill()
        process.wait()


def _wait_until_up(port: int) -> None:
    ends = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), START_S).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < ends, "the peer does not start"
            time.sleep(0.02)


def desk(servers: Mapping[str, str], tools: str = '["calc/*"]', text: str = "Help.", **agents: str) -> dict[str, str]:
    """An agent `bot` that calls a tool by its name: `add 2 3`, `whoami`, `slow 1.5`."""
    entries = "".join(f"  {name}: {entry}\n" for name, entry in servers.items())
    others = "".join(f"  {name}: {{model: demo, prompt: {{text: {text}}}}}\n" for name, text in agents.items())
    return {
        "tools.yaml": f"mcp_servers:\n{entries}" if entries else "{}\n",
        "agents.yaml": (
            "models:\n"
            "  demo:\n"
            "    model: demo:rules\n"
            "    params:\n"
            "      rules:\n"
            "        - {when: 'add (?P<a>\\d+) (?P<b>\\d+)', call: add}\n"
            "        - {when: 'slow (?P<seconds>[.\\d]+)', call: slow}\n"
            "        - {when: 'whoami', call: whoami}\n"
            "        - {when: 'crash', call: crash}\n"
            "        - {when: 'fail', call: fail}\n"
            "        - {when: 'block (?P<seconds>[.\\d]+)', call: block}\n"
            "        - {when: 'odd', call: odd}\n"
            "        - {when: 'big', call: big}\n"
            "agents:\n"
            f"  bot: {{model: demo, prompt: {{text: {text}}}, tools: {tools}}}\n"
            f"{others}"
        ),
    }


async def said(manager: Any, text: str, **options: Any) -> str:
    """What the tool answered, or that it failed."""
    answer = await manager.invoke("bot", {"messages": [("user", text)]}, **options)
    tools = [message for message in answer["messages"] if message.type == "tool"]
    return str(tools[-1].text if tools else answer["messages"][-1].text)
