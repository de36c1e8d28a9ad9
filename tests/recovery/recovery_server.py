"""The server of `tests/faults`, with more that an order may say.

`close_s`: how long it waits for runs when it stops. `retry_s`: how long it tries again what Postgres does not answer.
`exit`: a file for its exit status. `stop_after`: words of a
statement to Postgres, after which the process stops itself (SIGSTOP), once, from when the `trigger` is there.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))

import faulty_server

STOP_S = 0.2


def stop_after(words: str, trigger: str) -> None:
    import psycopg

    execute = psycopg.Cursor.execute
    stopped: list[bool] = []

    def watched(cursor: Any, query: Any, *rest: Any, **more: Any) -> Any:
        result = execute(cursor, query, *rest, **more)
        if not stopped and words in str(query) and os.path.exists(trigger):
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(STOP_S)  # it need not stop the thread that asks for it at once
        return result

    psycopg.Cursor.execute = watched  # type: ignore[method-assign]


def serve(order: dict[str, Any]) -> int:
    if "close_s" in order:
        import changeover.manager
        import changeover.server.serve

        changeover.manager.CLOSE_WAIT_S = order["close_s"]
        changeover.server.serve.RUNS_WAIT_S = order["close_s"]
    if "retry_s" in order:
        from changeover.store.postgres_database import PostgresDatabase

        PostgresDatabase.__init__.__kwdefaults__["retry_s"] = order["retry_s"]
    if "stop_after" in order:
        stop_after(order["stop_after"], order["trigger"])
    status = plain(order)
    if "exit" in order:
        Path(order["exit"]).write_text(str(status))
    return status


plain = faulty_server.serve
faulty_server.serve = serve

if __name__ == "__main__":
    faulty_server.nursery()
