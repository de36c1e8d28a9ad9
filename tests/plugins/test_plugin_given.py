"""What graphs and tools are given of a plugin: something that behaves as it does, and says so when it is down."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from plugin_stands import PLUGIN, Stand, Version

from changeover import ProjectError
from changeover.resources.resource import ResourceDown

MANY = '''
import asyncio
from typing import Protocol

class Base:
    kind = "base"

class Kb(Base):
    def __init__(self):
        self.items = {"a": 1}
    def get(self, key: str, *, default: int = 0) -> int:
        """Look it up."""
        return self.items.get(key, default)
    async def later(self, key: str) -> int:
        await asyncio.sleep(0)
        return self.items[key]
    async def stream(self):
        for key in self.items:
            yield key
    @property
    def size(self):
        return len(self.items)
    @staticmethod
    def plain(x):
        return x + 1
    @classmethod
    def made(cls):
        return cls.__name__
    def __len__(self):
        return len(self.items)
    def __getitem__(self, key):
        return self.items[key]
    def __iter__(self):
        return iter(self.items)
    def __contains__(self, key):
        return key in self.items
    def __call__(self, x):
        return x * 2
    def __eq__(self, other):
        return other == "kb"
    def __hash__(self):
        return 7
    def __enter__(self):
        return self
    def __exit__(self, *error):
        self.left = True
    async def __aenter__(self):
        return self
    async def __aexit__(self, *error):
        self.left_later = True

class Bare:
    pass
'''
BOTH = PLUGIN + "  bare: {class: graphs.kb:Bare}\n"


async def many(stand: Stand) -> Version:
    return await stand.open({"changeover.yaml": BOTH, "graphs/kb.py": MANY})


async def test_it_is_used_as_the_instance_would_be(stand: Stand) -> None:
    version = await many(stand)
    kb = version.parts.resource("kb")
    assert (kb.get("a"), kb.get("b", default=5), await kb.later("a"), kb.size, kb.kind) == (1, 5, 1, 1, "base")
    assert ([key async for key in kb.stream()], list(kb), len(kb), kb["a"], "a" in kb, kb(4)) == (
        ["a"],
        ["a"],
        1,
        1,
        True,
        8,
    )
    assert (kb.plain(1), kb.made(), kb == "kb", hash(kb)) == (2, "Kb", True, 7)
    with kb as entered:
        assert entered.size == 1
    async with kb:
        pass
    assert (kb.left, kb.left_later) == (True, True)
    kb.items["b"] = 2
    kb.extra = 3
    assert (kb.size, kb.extra, vars(kb)["extra"], "get" in dir(kb)) == (2, 3, 3, True)
    del kb.extra
    with pytest.raises(AttributeError):
        _ = kb.extra


async def test_it_looks_like_its_class(stand: Stand) -> None:
    version = await many(stand)
    kb, bare, module = version.plugins["kb"], version.plugins["bare"], version.module()
    assert isinstance(kb, module.Kb)
    assert isinstance(kb, module.Base)
    assert (callable(kb), callable(bare), hasattr(bare, "__len__")) == (True, False, False)
    assert [inspect.iscoroutinefunction(each) for each in (kb.later, kb.get)] == [True, False]
    assert list(inspect.signature(kb.get).parameters) == ["key", "default"]
    assert kb.get.__doc__ == "Look it up."
    assert repr(kb) == "<plugin 'kb': Kb>"


async def test_methods_taken_before_it_is_open_work_later(stand: Stand) -> None:
    version = stand.version({"changeover.yaml": BOTH, "graphs/kb.py": MANY})
    get, kb = version.plugins["kb"].get, version.plugins["kb"]
    with pytest.raises(ResourceDown, match="plugin 'kb' is not open"):
        get("a")
    with pytest.raises(ResourceDown):
        _ = kb.size
    await version.open()
    assert get("a") == 1


async def test_it_is_never_stored_and_not_copied(stand: Stand) -> None:
    kb = (await many(stand)).plugins["kb"]
    assert copy.copy(kb) is kb
    assert copy.deepcopy({"kb": kb})["kb"] is kb
    with pytest.raises(TypeError, match="cannot be stored"):
        pickle.dumps(kb)


async def test_a_name_that_is_no_plugin_is_a_problem(stand: Stand) -> None:
    version = await many(stand)
    with pytest.raises(ProjectError) as raised:
        version.parts.resource("bere")
    (problem,) = raised.value.problems
    assert (problem.code, problem.path, problem.hint) == ("unknown-resource", "changeover.yaml", "did you mean 'bare'?")


TOOLS = '''
from changeover import GraphContext

def plain(key: str, ctx) -> int:
    """Look it up."""
    return ctx.resource("kb").get(key)

async def later(ctx: GraphContext, key: str) -> int:
    """Look it up."""
    return await ctx.resource("kb").later(key)

def own(ctx: str) -> str:
    """Has a parameter of that name."""
    return ctx

class Finder:
    """Looks it up."""
    def __init__(self, default: int, ctx):
        self.kb, self.default = ctx.resource("kb"), default
    def __call__(self, key: str) -> int:
        return self.kb.get(key, default=self.default)

def wrong(key: str, ctx) -> str:
    """Asks for what a tool has not."""
    return ctx.agent("x")
'''
YAML = """
tools:
  plain: {python: graphs.tools:plain}
  later: {python: graphs.tools:later}
  own: {python: graphs.tools:own}
  finder: {python: graphs.tools:Finder, with: {default: 9}}
  wrong: {python: graphs.tools:wrong}
"""


async def test_tools_are_given_ctx_that_the_model_does_not_see(stand: Stand) -> None:
    files = {"changeover.yaml": PLUGIN, "graphs/kb.py": MANY, "graphs/tools.py": TOOLS, "tools.yaml": YAML}
    version = await stand.open(files)
    tool: Callable[[str], Any] = version.parts.tool
    assert (list(tool("plain").args), list(tool("later").args), list(tool("own").args)) == (["key"], ["key"], ["ctx"])
    assert (tool("plain").invoke({"key": "a"}), await tool("later").ainvoke({"key": "a"})) == (1, 1)
    assert (tool("own").invoke({"ctx": "mine"}), tool("finder").invoke({"key": "z"})) == ("mine", 9)
    with pytest.raises(AttributeError, match="has resources, no agents"):
        tool("wrong").invoke({"key": "a"})
