"""The HTTP connections of model clients: one set for all clients that talk to one server with one key.

Owns which clients may share, and the closing. So a change of temperature makes a new client on the same connections,
and a changed key gets connections of its own. Only packages built on OpenAI's take connections from outside; the others
open and close their own.

Invariants: no socket is open before the first request, nor after the last user is gone. A client may ask again after
that, and connects anew: graphs are kept for a while after nothing needs them. Connections that never had a user, those
of a client that a graph asks for while it runs, are closed when nothing has them any more, at the latest in the end.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from changeover.project.providers import provider, provider_of
from changeover.resources.model_credentials import is_secret, is_server, secrets_of, with_plain_address

_BASE = "langchain_openai.chat_models.base"
_TAKEN = ("http_client", "http_async_client")
_OWN = {"http_socket_options", "openai_proxy", *_TAKEN}
"""Parameters with which the package has to open connections by itself."""
_OF_CONTENT = {"content-encoding", "content-length", "transfer-encoding"}
_PROXY_VARIABLE = "OPENAI_PROXY"
_WHO = re.compile(r"(?:\w+_)?organization")


class Connections:
    """Both kinds: those of callers that wait in a thread, and those of the event loop. Users take and give back.

    What a server says of a failure is passed on without the secrets that it was sent.
    """

    def __init__(self, line: Mapping[str, Any]) -> None:
        from openai import DefaultAsyncHttpxClient, DefaultHttpxClient

        self._users = 0
        self._secrets = secrets_of(line)
        self._blocking = _Blocking(self)
        self._waiting = _Waiting(self)
        transports: Any = (self._blocking, self._waiting)  # the package has classes of its own for them
        made = DefaultHttpxClient(transport=transports[0]), DefaultAsyncHttpxClient(transport=transports[1])
        self.params: Mapping[str, Any] = dict(zip(_TAKEN, made, strict=True))
        """What a model's client is given to use them."""

    def take(self) -> None:
        self._users += 1

    async def give_back(self) -> None:
        """The last one closes them."""
        self._users -= 1
        if self._users == 0:
            await self.close()

    def without_secrets(self, answer: Any, content: bytes) -> Any:
        """The answer again, of the server's client and with that content."""
        shown = self._secrets.hidden(content.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        headers = [(name, value) for name, value in answer.headers.multi_items() if name.lower() not in _OF_CONTENT]
        return type(answer)(answer.status_code, headers=headers, content=shown, extensions=answer.extensions)

    async def close(self) -> None:
        try:
            self._blocking.close()
        finally:
            await self._waiting.aclose()


class _Blocking:
    """A transport that connects with its first request, also with the first after it was closed.

    A whole client is behind it: that knows the proxies and certificates of the environment.
    """

    def __init__(self, part_of: Connections) -> None:
        self._part_of = part_of  # whoever holds the client holds all of it
        self._lock = threading.Lock()
        self._client: Any = None

    def handle_request(self, request: Any) -> Any:
        with self._lock:
            if self._client is None:
                from openai import DefaultHttpxClient

                self._client = DefaultHttpxClient()
            client = self._client
        answer = client.send(request, stream=True, follow_redirects=False)
        return self._part_of.without_secrets(answer, answer.read()) if answer.is_error else answer

    def close(self) -> None:
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()


class _Waiting:
    """The same for the event loop."""

    def __init__(self, part_of: Connections) -> None:
        self._part_of = part_of
        self._open = _Open()
        weakref.finalize(self, _Open.abandon, self._open)

    async def handle_async_request(self, request: Any) -> Any:
        if self._open.client is None:
            from openai import DefaultAsyncHttpxClient

            self._open.client = DefaultAsyncHttpxClient()
            self._open.loop = asyncio.get_running_loop()
        answer = await self._open.client.send(request, stream=True, follow_redirects=False)
        return self._part_of.without_secrets(answer, await answer.aread()) if answer.is_error else answer

    async def aclose(self) -> None:
        client, self._open.client = self._open.client, None
        if client is not None:
            await client.aclose()


class _Open:
    """What is open in the event loop. Where it is dropped without a word, its loop closes it."""

    def __init__(self) -> None:
        self.client: Any = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Task[None] | None = None

    def abandon(self) -> None:
        if self.client is not None and self.loop is not None and not self.loop.is_closed():
            with suppress(RuntimeError):  # closed meanwhile
                self.loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        if self.loop is not None:
            self._closing = self.loop.create_task(self.client.aclose(), name="changeover-model-close")


def line_of(model: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The server that a model is asked at, and who asks: values, which may be secrets."""
    said = {name: value for name, value in params.items() if is_secret(name) or is_server(name) or _WHO.fullmatch(name)}
    return {"provider": provider_of(model, params), **said}


def takes_connections(model: str, params: Mapping[str, Any]) -> bool:
    """Whether its client can share connections. Raises whatever importing the provider's package raises."""
    return not (_OWN & params.keys() or os.environ.get(_PROXY_VARIABLE)) and is_built_on_openai(model, params)


def for_openai(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters for a package built on OpenAI's: unless they say otherwise, a stream tells its tokens.

    The package by itself asks for them only where it opens the connections, and OpenAI's own server is at their end.
    """
    return {"stream_usage": True, **with_plain_address(params)}


def is_built_on_openai(model: str, params: Mapping[str, Any]) -> bool:
    """Whether its client is one of OpenAI's package. Raises whatever importing the provider's package raises."""
    found = provider(provider_of(model, params))
    if found is None:
        return False
    cls = getattr(importlib.import_module(found.module), found.class_name, None)
    base = getattr(sys.modules.get(_BASE), "BaseChatOpenAI", None)  # the compatible ones are derived from it
    return isinstance(cls, type) and isinstance(base, type) and issubclass(cls, base)
