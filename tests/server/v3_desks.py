"""Graphs for the streaming protocol, made in code, and a real socket to reach them by."""

from __future__ import annotations

import asyncio
import operator
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypedDict

import uvicorn
from langchain.agents import create_agent
from langchain.agents.middleware import PIIMiddleware
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, SystemMessage, ToolCall
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode
from langgraph.stream import StreamChannel, StreamTransformer
from langgraph.types import Command, Send, interrupt

from changeover import GraphVersionManager, create_app

Graph = StateGraph[Any, Any, Any, Any]


class Desk(MessagesState, total=False):
    log: Annotated[list[str], operator.add]
    answers: Annotated[list[Any], operator.add]
    tenant: str


class Log(TypedDict, total=False):
    log: Annotated[list[str], operator.add]


class Piece(Log):
    name: str


class Gate:
    """Lets one token through each time it is opened; `said` counts those that were made."""

    def __init__(self) -> None:
        self.said = 0
        self.entered = asyncio.Event()
        self._open = asyncio.Semaphore(0)

    def let(self, count: int = 1) -> None:
        for _ in range(count):
            self._open.release()

    async def step(self) -> None:
        self.entered.set()
        await self._open.acquire()
        self.said += 1


class Speaker(BaseChatModel):
    """Says what it is given, token by token, and calls a tool if it is told to. With a gate it waits for each token."""

    tokens: Sequence[str] = ()
    call: dict[str, Any] | None = None
    gate: Any = None

    @property
    def _llm_type(self) -> str:
        return "speaker"

    def _chunks(self) -> Iterator[ChatGenerationChunk]:
        for token in self.tokens:
            yield ChatGenerationChunk(message=AIMessageChunk(content=token))
        if self.call:
            args = ['{"a": 1,', ' "b": 2}']
            head = tool_call_chunk(name=self.call["name"], args="", id=self.call["id"], index=0)
            rest = [tool_call_chunk(name=None, args=part, id=None, index=0) for part in args]
            for piece in (head, *rest):
                yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[piece]))
        yield ChatGenerationChunk(message=AIMessageChunk(content="", chunk_position="last"))

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        calls = [ToolCall(name=self.call["name"], args={"a": 1, "b": 2}, id=self.call["id"])] if self.call else []
        message = AIMessage(content="".join(self.tokens), tool_calls=calls)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        yield from self._chunks()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._chunks():
            if self.gate is not None:
                await self.gate.step()
            yield chunk


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def break_(a: int, b: int) -> int:
    """Always fails."""
    raise ValueError("no paper")


def speaking(model: BaseChatModel) -> Any:
    async def speak(state: Desk) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])], "log": ["spoke"]}

    return speak


def chatting(gate: Gate | None = None, tokens: Sequence[str] = ("one", " two", " three")) -> Graph:
    graph = StateGraph(Desk).add_node("speak", speaking(Speaker(tokens=tokens, gate=gate)))
    return graph.add_edge(START, "speak").add_edge("speak", END)


def working() -> Graph:
    """outer: hello -> inner graph (writes, speaks, calls a tool) -> bye, a message that came whole."""

    def write(state: Desk) -> dict[str, Any]:
        get_stream_writer()({"name": "progress", "payload": {"done": 1}})
        get_stream_writer()("plain")
        return {"log": ["wrote"]}

    inner = StateGraph(Desk).add_node("write", write)
    inner.add_node("speak", speaking(Speaker(tokens=("I", " add"), call={"name": "add", "id": "call-1"})))
    inner.add_node("tools", ToolNode([add]))
    inner.add_edge(START, "write").add_edge("write", "speak").add_edge("speak", "tools").add_edge("tools", END)
    graph = StateGraph(Desk).add_node("hello", lambda state: {"log": ["hello"]}).add_node("inner", inner.compile())
    graph.add_node("bye", lambda state: {"messages": [AIMessage("bye", id="whole"), SystemMessage("note", id="note")]})
    return graph.add_edge(START, "hello").add_edge("hello", "inner").add_edge("inner", "bye").add_edge("bye", END)


def parallel() -> Graph:
    """Two models speak at once, in one namespace."""
    graph = StateGraph(Desk)
    for name in ("left", "right"):
        graph.add_node(name, speaking(Speaker(tokens=tuple(f"{name}{number}" for number in range(4)))))
        graph.add_edge(START, name).add_edge(name, END)
    return graph


def asking() -> Graph:
    """Two questions at once, then a node that a jump leaves out, then the end."""

    def ask(state: Desk) -> dict[str, Any]:
        return {"answers": [interrupt({"question": "first"})]}

    def ask_more(state: Desk) -> dict[str, Any]:
        return {"answers": [interrupt({"question": "second"})]}

    graph = StateGraph(Desk).add_node("ask", ask).add_node("ask_more", ask_more)
    graph.add_node("end", lambda state: {"log": ["end"]}).add_node("aside", lambda state: {"log": ["aside"]})
    graph.add_edge(START, "ask").add_edge(START, "ask_more").add_edge(["ask", "ask_more"], "end")
    return graph.add_edge("end", END).add_edge("aside", END)


def asking_within() -> Graph:
    """A question that a subgraph asks."""

    def ask(state: Desk) -> dict[str, Any]:
        return {"answers": [interrupt("within?")]}

    inner = StateGraph(Desk).add_node("ask", ask).add_edge(START, "ask").add_edge("ask", END).compile()
    graph = StateGraph(Desk).add_node("inner", inner).add_node("end", lambda state: {"log": ["end"]})
    return graph.add_edge(START, "inner").add_edge("inner", "end").add_edge("end", END)


def failing() -> Graph:
    def fail(state: Desk) -> dict[str, Any]:
        raise RuntimeError("no paper")

    inner = StateGraph(Desk).add_node("fail", fail).add_edge(START, "fail").add_edge("fail", END).compile()
    return StateGraph(Desk).add_node("inner", inner).add_edge(START, "inner").add_edge("inner", END)


def sending() -> Graph:
    """Work is sent out, one subgraph for each piece; one of them hands over with a command."""

    def split(state: Desk) -> list[Send]:
        return [Send("piece", {"name": name}) for name in ("a", "b")]

    def work(state: Piece) -> Command[Any]:
        return Command(update={"log": [state["name"]]})

    inner = (
        StateGraph(Piece, output_schema=Log)
        .add_node("work", work)
        .add_edge(START, "work")
        .add_edge("work", END)
        .compile()
    )
    graph = StateGraph(Desk).add_node("piece", inner).add_conditional_edges(START, split, ["piece"])
    return graph.add_edge("piece", END)


class Shouts(StreamTransformer):
    """A channel of the graph's own, and no updates of node `quiet` for anybody."""

    def __init__(self, scope: tuple[str, ...] = ()) -> None:
        super().__init__(scope)
        self._shouts: StreamChannel[Any] = StreamChannel("shouts")

    def init(self) -> dict[str, Any]:
        return {"shouts": self._shouts}

    def process(self, event: Any) -> bool:
        if event["method"] == "updates":
            self._shouts.push({"of": next(iter(event["params"]["data"]))})
            return False
        return True

    def finalize(self) -> None:
        self._shouts.push({"of": "the end"})


def shouting() -> Any:
    """A graph with a stream transformer, which asks something."""

    def ask(state: Desk) -> dict[str, Any]:
        return {"answers": [interrupt("loud?")]}

    graph = StateGraph(Desk).add_node("quiet", lambda state: {"log": ["quiet"]}).add_node("ask", ask)
    graph.add_edge(START, "quiet").add_edge("quiet", "ask").add_edge("ask", END)
    return graph.compile(transformers=[Shouts])


def discreet() -> Any:
    """An agent that takes mail addresses out of what it says."""
    model = Speaker(tokens=("write to ", "ada@exam", "ple.com", " soon"))
    return create_agent(model, middleware=[PIIMiddleware("email", strategy="redact", apply_to_output=True)])


def graphs(gate: Gate) -> dict[str, Any]:
    return {
        "chatting": chatting(),
        "gated": chatting(gate),
        "working": working(),
        "parallel": parallel(),
        "asking": asking(),
        "asking_within": asking_within(),
        "failing": failing(),
        "sending": sending(),
        "shouting": shouting(),
        "discreet": discreet(),
    }


@asynccontextmanager
async def at_socket(manager: GraphVersionManager) -> AsyncIterator[str]:
    """The application of a manager on a real socket; gives its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    app = create_app(manager)
    config = uvicorn.Config(app, lifespan="off", log_config=None, ws="websockets-sansio", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined,method-assign,unused-ignore]
    task = asyncio.create_task(server._serve([listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        app.state.stopping.set()
        server.should_exit = True
        await task


def said(text: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}]}
