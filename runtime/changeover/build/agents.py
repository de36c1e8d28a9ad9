"""Agents of agents.yaml as compiled graphs, built with langchain's `create_agent`.

Owns how each key of an agent becomes an argument of `create_agent`, and the handoff tools of an agent that is a node
of a graph. It gives no checkpointer and no store: whoever runs the agent does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, cast, get_type_hints

from jinja2.exceptions import TemplateError
from langchain.agents import create_agent
from langchain.agents.middleware import AgentState, ModelFallbackMiddleware, ModelRequest, ModelResponse
from langchain.agents.middleware.types import AgentMiddleware
from langchain_core.messages import SystemMessage
from langchain_core.tools import BaseTool
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel
from typing_extensions import TypedDict, is_typeddict

from changeover.build.blame import own_code_problem
from changeover.build.handoffs import handoff_tool
from changeover.build.middleware import AnyMiddleware, build_middleware
from changeover.build.state import context_type
from changeover.errors import InvalidRequest, ProjectError
from changeover.project.models import AgentSpec, InlinePrompt
from changeover.project.problems import Problem
from changeover.project.prompts import Prompts

if TYPE_CHECKING:
    from changeover.build.parts import Parts

CompiledAgent = CompiledStateGraph[Any, Any, Any, Any]


class ContextPrompt(AgentMiddleware[Any, Any]):
    """Renders the system prompt for each call, with what the caller gave as context. It adds no node."""

    def __init__(self, agent: str, prompt: str | InlinePrompt, prompts: Prompts) -> None:
        super().__init__()
        self._agent = agent
        self._prompt = prompt
        self._prompts = prompts

    def _with_prompt(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        context = _as_mapping(request.runtime.context)
        try:
            text = _rendered(self._prompt, self._prompts, context)
        except TemplateError as error:
            message = f"the prompt of agent '{self._agent}' cannot be rendered with this context: {error}"
            raise InvalidRequest(message, code="context", hint="give the agent's context with the run") from error
        return request.override(system_message=SystemMessage(text))

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        return handler(self._with_prompt(request))

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Any) -> ModelResponse[Any]:
        return cast("ModelResponse[Any]", await handler(self._with_prompt(request)))


class Fallbacks(ModelFallbackMiddleware):
    """The `fallbacks` of a model. A class of its own, so that an agent may have `model_fallback` besides.

    Where all fail, what the model itself said is raised, as everywhere else.
    """

    def wrap_model_call(self, request: ModelRequest[Any], handler: Any) -> Any:
        failed: list[Exception] = []

        def noting(request: ModelRequest[Any]) -> Any:
            try:
                return handler(request)
            except Exception as error:  # the library of a provider
                failed.append(error)
                raise

        try:
            return super().wrap_model_call(request, noting)
        except Exception as error:  # as above
            last = error
        raise _first_of(failed, last)

    async def awrap_model_call(self, request: ModelRequest[Any], handler: Any) -> Any:
        failed: list[Exception] = []

        async def noting(request: ModelRequest[Any]) -> Any:
            try:
                return await handler(request)
            except Exception as error:  # the library of a provider
                failed.append(error)
                raise

        try:
            return await super().awrap_model_call(request, noting)
        except Exception as error:  # as above
            last = error
        raise _first_of(failed, last)


def _first_of(failed: Sequence[Exception], last: Exception) -> Exception:
    return failed[0] if failed and failed[-1] is last else last


def build_agent(
    name: str, spec: AgentSpec, parts: Parts, handoffs: Mapping[str, str] | Sequence[str] = (), node: str = ""
) -> CompiledAgent:
    """The agent `name`. Raises `ProjectError` with all its problems.

    `handoffs` names nodes (with descriptions, where it is a mapping); for each the agent gets a tool `transfer_to_x`
    that leaves for it from `node`, the agent's own node in the graph around it.
    """
    described = dict(handoffs) if isinstance(handoffs, Mapping) else dict.fromkeys(handoffs, "")
    tools = [handoff_tool(node or name, target, description) for target, description in described.items()]
    return _Agent(name, spec, parts, tools).build()


class _Agent:
    def __init__(self, name: str, spec: AgentSpec, parts: Parts, handoffs: list[BaseTool]) -> None:
        self._name = name
        self._spec = spec
        self._parts = parts
        self._handoffs = handoffs
        self._place = ("agents", name)

    def build(self) -> CompiledAgent:
        made: dict[str, Any] = {}
        problems: list[Problem] = []
        for key in ("models", "tools", "middleware", "prompt", "state", "output", "context"):
            try:
                made[key] = getattr(self, f"_{key}")()
            except ProjectError as error:
                problems += error.problems
        if problems:
            raise ProjectError(problems)
        return self._compile(made)

    def _compile(self, made: dict[str, Any]) -> CompiledAgent:
        first, *fallbacks = made["models"]
        prompt, rendering = made["prompt"]
        middleware = [*made["middleware"], *rendering, *([Fallbacks(*fallbacks)] if fallbacks else [])]
        try:
            agent = create_agent(
                first,
                made["tools"],
                system_prompt=prompt,
                middleware=middleware,
                response_format=made["output"],
                state_schema=made["state"],
                context_schema=made["context"],
                name=self._name,
            )
        except Exception as error:  # langchain checks tools and middleware here; both may be the project's
            problem = own_code_problem(self._parts.project, "agent", f"agent '{self._name}'", error, *self._place)
            raise ProjectError([problem]) from error
        config = self._parts.resolved(self._spec.config, *self._place, "config")
        return agent.with_config(cast("Any", config)) if config else agent

    def _models(self) -> list[Any]:
        return list(self._parts.model_chain(self._spec.model, *self._place, "model"))

    def _tools(self) -> list[BaseTool]:
        tools = [*self._parts.select_tools(self._spec.tools, *self._place, "tools"), *self._handoffs]
        seen: set[str] = set()
        for tool in tools:
            if tool.name in seen:
                message = f"agent '{self._name}' has two tools called '{tool.name}'"
                raise ProjectError([self._parts.problem("duplicate-name", message, *self._place, "tools")])
            seen.add(tool.name)
        return tools

    def _middleware(self) -> list[AnyMiddleware]:
        return build_middleware(self._name, self._spec.middleware, self._parts)

    def _prompt(self) -> tuple[str | None, list[AnyMiddleware]]:
        """The system prompt, or what renders it at each call where the context takes part in it."""
        if self._spec.prompt is None:
            return None, []
        if self._used_variables() & set(_context_keys(self._context())):
            return None, [ContextPrompt(self._name, self._spec.prompt, self._parts.prompts)]
        try:
            return _rendered(self._spec.prompt, self._parts.prompts, {}), []
        except TemplateError as error:
            message = f"agent '{self._name}': its prompt cannot be rendered: {error}"
            problem = self._parts.problem("prompt-variable", message, *self._place, "prompt")
            raise ProjectError([problem]) from error

    def _used_variables(self) -> set[str]:
        prompts, prompt = self._parts.prompts, self._spec.prompt
        if not isinstance(prompt, InlinePrompt):
            return prompts.variables(prompt or "")
        looks = [prompts.look_at(prompt.text), *map(prompts.look, prompts.included(prompt.text, None))]
        return {name for look in looks for name in look.variables}

    def _state(self) -> Any:
        if self._spec.state is None:
            return None
        own = self._parts.resolve(self._spec.state, *self._place, "state")
        if not is_typeddict(own):
            message = f"agent '{self._name}': the state {self._spec.state} must be a TypedDict"
            raise ProjectError([self._parts.problem("state", message, *self._place, "state")])
        if set(AgentState.__annotations__) <= set(own.__annotations__):
            return own
        hints = {**get_type_hints(AgentState, include_extras=True), **get_type_hints(own, include_extras=True)}
        return TypedDict(own.__name__, hints)  # type: ignore[operator]

    def _output(self) -> Any:
        return self._parts.resolve(self._spec.output, *self._place, "output") if self._spec.output else None

    def _context(self) -> Any:
        return context_type(self._spec.context, self._parts, *self._place, "context")


def _rendered(prompt: str | InlinePrompt, prompts: Prompts, variables: Mapping[str, Any]) -> str:
    if isinstance(prompt, InlinePrompt):
        return prompts.render_text(prompt.text, variables)
    return prompts.render(prompt, variables)


def _context_keys(context: Any) -> list[str]:
    if context is None:
        return []
    if isinstance(context, type) and issubclass(context, BaseModel):
        return list(context.model_fields)
    return [field.name for field in fields(context)] if is_dataclass(context) else list(get_type_hints(context))


def _as_mapping(context: Any) -> Mapping[str, Any]:
    if context is None:
        return {}
    if isinstance(context, Mapping):
        return context
    if isinstance(context, BaseModel):
        return dict(context)
    if is_dataclass(context):
        return {field.name: getattr(context, field.name) for field in fields(context)}
    return dict(vars(context))
