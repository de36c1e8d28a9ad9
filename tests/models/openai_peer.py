"""A server that speaks OpenAI's chat completions on a loopback socket and answers as a test told it.

It counts connections and requests itself and keeps what it was sent: headers, bodies, and which connection it came on.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


@dataclass(frozen=True)
class Words:
    """An answer in words. `wait` holds it back, after the first word where it is streamed."""

    text: str
    wait: asyncio.Event | None = None


@dataclass(frozen=True)
class Calls:
    """An answer that calls tools: names and arguments. `wait` holds it back as it does words."""

    calls: tuple[tuple[str, dict[str, Any]], ...]
    wait: asyncio.Event | None = None


@dataclass(frozen=True)
class Status:
    status: int
    message: str = "said so"
    retry_after: str | None = None


@dataclass(frozen=True)
class Raw:
    """Bytes that are no answer; then the connection ends. `None` hangs until the caller gives up."""

    data: bytes | None


@dataclass(frozen=True)
class Cut:
    """The first words of a stream; then the connection breaks."""

    text: str


Answer = Words | Calls | Status | Raw | Cut


@dataclass(frozen=True)
class Asked:
    connection: int
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def key(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def said(self) -> str:
        return str(self.body["messages"][-1]["content"])


@dataclass
class OpenAIPeer:
    """`answers` are given one after the other; without any it repeats what was said."""

    port: int = 0
    answers: list[Answer] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    open: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def will(self, *answers: Answer) -> None:
        self.answers += answers

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        number = self.connections
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._one(number, reader, writer):
                    pass
        finally:
            self.open -= 1
            writer.close()

    async def _one(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; False where the connection ends with it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))))
        self.asked.append(Asked(number, headers, body))
        if not head[0].startswith(("POST /v1/chat/completions ", "POST /v1/chat/completions?")):
            writer.write(_whole(404, {"error": {"message": f"no such route: {head[0]}"}}))
            return True
        answer = self.answers.pop(0) if self.answers else Words(f"You said: {self.asked[-1].said}")
        return await self._say(answer, body, reader, writer)

    async def _say(
        self, answer: Answer, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        match answer:
            case Raw(None):
                await reader.read()
                return False
            case Raw(data):
                writer.write(data or b"")
                await writer.drain()
                return False
            case Status(status, message, retry_after):
                extra = [f"Retry-After: {retry_after}"] if retry_after else []
                writer.write(_whole(status, {"error": {"message": message, "type": "scripted"}}, *extra))
                await writer.drain()
                return True
            case Words() | Calls() | Cut():
                if body.get("stream"):
                    return await _stream(answer, body, writer)
                if not isinstance(answer, Cut) and answer.wait:
                    await answer.wait.wait()
                writer.write(_whole(200, _completion(answer, body)))
                await writer.drain()
                return not isinstance(answer, Cut)


@asynccontextmanager
async def openai_peer(*answers: Answer) -> AsyncIterator[OpenAIPeer]:
    peer = OpenAIPeer(answers=list(answers))
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        with suppress(asyncio.CancelledError):
            await peer.serve(reader, writer)
        running.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _whole(status: int, body: dict[str, Any], *headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Said", "Content-Type: application/json", f"Content-Length: {len(data)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


def _completion(answer: Words | Calls | Cut, body: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if isinstance(answer, Calls):
        message["tool_calls"] = [
            {"id": _id(index, body), "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
            for index, (name, given) in enumerate(answer.calls)
        ]
    else:
        message["content"] = answer.text
    why = "tool_calls" if isinstance(answer, Calls) else "stop"
    choice = {"index": 0, "message": message, "finish_reason": why, "logprobs": None}
    return {**_head(body, "chat.completion"), "choices": [choice], "usage": USAGE}


async def _stream(answer: Words | Calls | Cut, body: dict[str, Any], writer: asyncio.StreamWriter) -> bool:
    lines = ["HTTP/1.1 200 Said", "Content-Type: text/event-stream", "Transfer-Encoding: chunked", "", ""]
    writer.write("\r\n".join(lines).encode())
    for index, delta in enumerate(_deltas(answer, body)):
        _event(writer, _chunk(body, delta))
        await writer.drain()
        if index == 1 and not isinstance(answer, Cut) and answer.wait:
            await answer.wait.wait()
    if isinstance(answer, Cut):
        return False  # without the last chunk
    _event(writer, _chunk(body, {}, "tool_calls" if isinstance(answer, Calls) else "stop"))
    if (body.get("stream_options") or {}).get("include_usage"):
        _event(writer, {**_head(body, "chat.completion.chunk"), "choices": [], "usage": USAGE})
    _event(writer, "[DONE]")
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


def _deltas(answer: Words | Calls | Cut, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": ""}
    if not isinstance(answer, Calls):
        for word in answer.text.split(" "):
            yield {"content": word if word == answer.text.split(" ")[-1] else f"{word} "}
        return
    for index, (name, given) in enumerate(answer.calls):
        text = json.dumps(given)
        first = {"index": index, "id": _id(index, body), "type": "function"}
        yield {"tool_calls": [{**first, "function": {"name": name, "arguments": ""}}]}
        for start in range(0, len(text), 5):
            yield {"tool_calls": [{"index": index, "function": {"arguments": text[start : start + 5]}}]}


def _id(index: int, body: dict[str, Any]) -> str:
    return f"call_{len(body['messages'])}_{index}"


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": body["model"]}


def _chunk(body: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
    return {**_head(body, "chat.completion.chunk"), "choices": [choice]}


def _event(writer: asyncio.StreamWriter, data: dict[str, Any] | str) -> None:
    text = data if isinstance(data, str) else json.dumps(data)
    event = f"data: {text}\n\n".encode()
    writer.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
