"""What makes the vectors of the long-term store, as langgraph.json names it.

Owns the way from `provider:model` or `path.py:function` to LangChain's embeddings. The store belongs to the server and
not to a version: a function of the project is taken from the folder as it is when the server starts, and vectors are
made by it until the next start, so that those of one store can be compared.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from langchain_core.embeddings import Embeddings
from langgraph.store.base import TTLConfig
from langgraph.store.base.embed import ensure_embeddings
from langgraph.store.sqlite.base import SqliteIndexConfig

from changeover.build.modules import CodeTree, CodeTrees
from changeover.errors import OperatorError
from changeover.project.check import analyse
from changeover.project.environment import store_of
from changeover.project.langgraph import StoreSettings, is_path, target_of
from changeover.versions.snapshot import SnapshotLimits, take


class StoreEmbeddings(Embeddings):
    """Embeddings that are opened when they are first used. Every call raises `OperatorError` while they cannot be."""

    def __init__(self, name: str, opening: Callable[[], Any]) -> None:
        self._name = name
        self._opening = opening
        self._opened: Embeddings | None = None
        self._lock = threading.Lock()

    def open(self) -> Embeddings:
        """Blocking: imports a package, or the project's code."""
        with self._lock:
            if self._opened is not None:
                return self._opened
            try:
                opened = ensure_embeddings(self._opening())
            except Exception as error:  # the project's code, or a provider's package
                raise OperatorError(
                    f"the long-term store cannot make embeddings with '{self._name}': {_said(error)}",
                    code="store-embed",
                    hint="correct store.index.embed in langgraph.json, or set the key it needs, and start again",
                ) from error
            self._opened = opened
            return opened

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self.open().embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return self.open().embed_query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return await (await self._ready()).aembed_documents(texts)

    async def aembed_query(self, text: str) -> list[float]:
        return await (await self._ready()).aembed_query(text)

    async def _ready(self) -> Embeddings:
        return self._opened if self._opened is not None else await asyncio.to_thread(self.open)


class StoreWishes:
    """What langgraph.json wants of the long-term store: `index` and `ttl`, as LangGraph's stores take them."""

    def __init__(self, folder: Path, trees: Path) -> None:
        """Blocking: reads langgraph.json. What is wrong with it is reported when the folder is checked."""
        self._folder = folder
        self._trees = CodeTrees(trees)
        self._tree: CodeTree | None = None
        found = store_of(folder)
        self.ttl: TTLConfig | None = _ttl(found)
        self.embeddings: StoreEmbeddings | None = None
        self.index: SqliteIndexConfig | None = None
        if found.embed and found.dims > 0:
            self.embeddings = StoreEmbeddings(found.embed, lambda: self._embed(found.embed))
            fields = list(found.fields) or ["$"]  # sqlite's store has a name of its own for them
            self.index = SqliteIndexConfig(dims=found.dims, embed=self.embeddings, fields=fields, text_fields=fields)  # type: ignore[typeddict-unknown-key, unused-ignore]

    async def problem(self) -> str:
        """Why embeddings cannot be made; empty if they can, or if none are wanted."""
        try:
            if self.embeddings is not None:
                await asyncio.to_thread(self.embeddings.open)
        except OperatorError as error:
            return error.message
        return ""

    def close(self) -> None:
        if self._tree is not None:
            self._trees.release(self._tree)

    def _embed(self, name: str) -> Any:
        if not is_path(name.rpartition(":")[0]):
            from langchain.embeddings import init_embeddings

            return init_embeddings(name)
        target = target_of("", name)
        project, _ = analyse(take(self._folder, SnapshotLimits()).files, {})
        folders = project.langgraph.folders if project.langgraph else ()
        if target is None or target.file not in project.files:
            raise FileNotFoundError("there is no such file in the project")
        if self._tree is None:
            self._tree = self._trees.acquire(project.files, project.import_roots, folders, "store")
        return self._tree.resolve(f"{self._tree.name_of(target.file)}:{target.attribute}")


def _ttl(found: StoreSettings) -> TTLConfig | None:
    known = {key: found.ttl[key] for key in TTLConfig.__annotations__ if found.ttl.get(key) is not None}
    return TTLConfig(**known) if known else None  # type: ignore[typeddict-item]


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:500].rstrip(": ")
