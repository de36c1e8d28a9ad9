"""Stopping a run at a boundary: after a superstep whose results are saved, so that nothing that is finished runs again.

LangGraph's `RunControl` is inherited by every graph that runs inside of another. Inside a graph whose state the saver
keeps by itself, a subgraph that is a node, the next boundary is that graph's own. A graph that a node's function calls,
or one without a saver, has none: stopping in it would run the function, or the finished steps, a second time.
"""

from __future__ import annotations

from langchain_core.runnables.config import var_child_runnable_config
from langgraph.pregel import Pregel
from langgraph.runtime import RunControl

from changeover.build.loaded import CompiledGraph


class Boundary(RunControl):
    """Stops one run of a graph at the next boundary, once that is asked for."""

    __slots__ = ("_graph", "_keeps_inner")

    def __init__(self, graph: CompiledGraph, *, keeps_inner: bool = True) -> None:
        """`keeps_inner`: inner graphs are saved as they go, not with the end of the run."""
        super().__init__()
        self._graph = graph
        self._keeps_inner = keeps_inner

    @property
    def drain_requested(self) -> bool:
        return super().drain_requested and self._keeps_what_is_finished(_namespace())

    def _keeps_what_is_finished(self, namespace: str) -> bool:
        """Whether the graph that asks, `node:task|node:task`, is a chain of nodes that are graphs with a saver."""
        if namespace and not self._keeps_inner:
            return False
        graph: object = self._graph
        for place in namespace.split("|") if namespace else ():
            node = graph.nodes.get(place.partition(":")[0]) if isinstance(graph, Pregel) else None
            graph = node.bound if node is not None else None
            if not isinstance(graph, Pregel) or graph.checkpointer is False:
                return False
        return True


def _namespace() -> str:
    """Of the graph that runs in this context; empty for the outermost."""
    config = var_child_runnable_config.get()
    configurable = (config or {}).get("configurable") or {}
    return str(configurable.get("checkpoint_ns") or "")
