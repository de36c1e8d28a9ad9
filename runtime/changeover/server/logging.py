"""Log lines of the server: text for people or JSON for machines, to standard error.

A line carries what is bound to its task (version, run, thread, graph) and the fields it was written with. What users
and models say, and secrets, are never logged: no line is given them, and fields of such names are dropped here.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, Literal

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from changeover.server.encoding import dumps

HIDDEN = frozenset(
    {
        "input",
        "output",
        "inputs",
        "outputs",
        "messages",
        "content",
        "token",
        "api_key",
        "authorization",
        "password",
        "secret",
    }
)
CHATTY = ("httpx", "httpcore", "urllib3", "watchdog", "asyncio", "aiosqlite", "uvicorn")


def configure(form: Literal["text", "json"] | str, level: int = logging.INFO) -> None:
    """Send all log lines of the process through one handler. Calling it again replaces that handler."""
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    after: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, hide, *_rendering(form)]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*before, structlog.stdlib.ExtraAdder()], processors=after
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    handler.addFilter(_is_no_quote)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    logging.getLogger("uvicorn.error").addFilter(_is_no_cut)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def hide(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    for name in HIDDEN & event.keys():
        event[name] = "(hidden)"
    return event


def _is_no_cut(record: logging.LogRecord) -> bool:
    """A stream that is not over is cut on purpose, so that its client comes again."""
    return record.msg != "ASGI callable returned without completing response."


def _is_no_quote(record: logging.LogRecord) -> bool:
    """The MCP SDK quotes what servers say, whatever is in it. What goes wrong with one is told by its state."""
    return not record.name.startswith("mcp.client") and "/mcp/shared/" not in record.pathname


def _rendering(form: str) -> list[Processor]:
    if form == "json":
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json_text)]
    return [structlog.processors.format_exc_info, text]


def text(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """One line for people, made in a few microseconds: two are written for each run.

    What somebody has to read line by line, the problems of an edit or a traceback, follows below it.
    """
    below = [*event.pop("problems", ()), *filter(None, [event.pop("exception", None)])]
    head = f"{event.pop('timestamp')} {event.pop('level', method):<7} {event.pop('event')}"
    event.pop("logger", None)
    fields = " ".join(f"{name}={_shown(value)}" for name, value in event.items() if value not in (None, ""))
    line = f"{head} {fields}" if fields else head
    return "\n".join([line, *below])


def _shown(value: Any) -> str:
    """A value on one line: what would break it, or could be taken for another field, is quoted."""
    said = str(value)
    return said if said.isprintable() and not {" ", "=", '"'} & set(said) else repr(said)


def _json_text(value: Any, **_: Any) -> str:
    return dumps(value).decode()
