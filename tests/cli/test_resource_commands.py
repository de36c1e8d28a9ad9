"""What servers and plugins say of themselves is shown, and steers neither the layout nor the terminal."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

RESOURCE: dict[str, Any] = {
    "id": "mcp:calc",
    "status": "healthy",
    "reason": "",
    "required": True,
    "versions": ["v1"],
    "since": None,
    "opened_at": None,
    "open_s": 0.1,
    "restarts": 0,
    "errors": 0,
    "last_error": None,
    "details": {
        "server": "calc\x1b[2J\nstatus stopped",
        "tools": ["add", "red\nstatus     stopped"],
        "drift": {"added": ["two\nlines"], "removed": [], "changed": []},
    },
}


@pytest.fixture
def server() -> Iterator[str]:
    """One that shows this resource."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(RESOURCE if "mcp" in self.path else {"resources": [RESOURCE]}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


def test_names_of_tools_stay_on_their_line(call: Any, server: str) -> None:
    one = call("resources", "mcp:calc", "--url", server)
    assert one.status == 0, one.err
    assert "add, red status stopped" in one.out
    assert "added two lines" in one.out
    assert len([line for line in one.out.splitlines() if line.startswith("status")]) == 1
    every = call("resources", "--url", server)
    assert len(every.out.splitlines()) == 2
    assert "\x1b" not in one.out + every.out
