"""The shape of the files a person writes: agents.yaml, tools.yaml, graphs/*.yaml, changeover.yaml.

Strict pydantic models, nothing else: no reading, no cross-file rules, no defaults that depend on
the machine. Their JSON Schemas are what `changeover schema` prints. `${NAME}` stays as written
here; it is resolved when a version is built.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from changeover.settings import duration_of_at_least

NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_-]*$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Ref = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]
"""`package.module:attribute`."""
PromptName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_-]*(/[A-Za-z0-9_-]+)*$")]
"""Path of a prompt below prompts/, without its suffix."""
ThreadPolicy = Literal["auto", "pinned", "eager"]
OneOrMany = str | list[str]
Amount = str | int | float
"""A duration or size with its unit, as text (`100ms`, `5MB`), or a plain number. `changeover.settings` reads it."""

TOOL_KINDS = ("python", "agent", "http", "openapi")
NODE_KINDS = ("python", "agent", "graph", "tools", "interrupt")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


# --- agents.yaml -----------------------------------------------------------------------------------


class RateLimit(Strict):
    """How often a client is asked: so many times a second, and `burst` at once after a rest."""

    requests_per_second: Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
    burst: Annotated[int, Field(ge=1, le=10_000)] = 1


class ModelSpec(Strict):
    """A chat model: what langchain's `init_chat_model` takes, and what to fall back to."""

    model: str
    params: dict[str, Any] = Field(default_factory=dict)
    fallbacks: list[Name] = Field(default_factory=list)
    rate_limit: RateLimit | None = None


class InlinePrompt(Strict):
    text: str


class AgentSpec(Strict):
    """An agent built with langchain's `create_agent`."""

    description: str = ""
    model: str
    prompt: PromptName | InlinePrompt | None = None
    tools: list[str] = Field(default_factory=list)
    middleware: list[str | dict[str, Any]] = Field(default_factory=list)
    state: Ref | None = None
    output: Ref | None = None
    context: dict[str, str] | Ref | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    threads: ThreadPolicy = "auto"


class AgentsFile(Strict):
    models: dict[Name, ModelSpec] = Field(default_factory=dict)
    agents: dict[Name, AgentSpec] = Field(default_factory=dict)


# --- tools.yaml ------------------------------------------------------------------------------------


class HttpOptions(Strict):
    """How requests of a tool are made. `retries` and `limit` have defaults of their own where they are left out."""

    headers: dict[str, str] = Field(default_factory=dict)
    timeout: Amount = 30
    retries: int | None = None
    limit: Amount = "1MB"
    private: bool = False


class HttpCall(HttpOptions):
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"] = "GET"
    url: Annotated[str, StringConstraints(min_length=1)]
    body: Literal["json", "form"] = "json"


class ToolSpec(HttpOptions):
    """A tool: exactly one of `python`, `agent`, `http`, `openapi`. What `HttpOptions` has is for `openapi` here."""

    python: Ref | None = None
    agent: Name | None = None
    http: HttpCall | None = None
    openapi: str | None = None
    description: str = ""
    with_: dict[str, Any] | None = Field(default=None, alias="with")
    args: dict[str, Any] | None = None
    operations: list[str] | None = None
    base_url: str | None = None


class McpServerSpec(BaseModel):
    """A tool server; further keys go to langchain-mcp-adapters as they are. `call_timeout` is in seconds."""

    model_config = ConfigDict(extra="allow", frozen=True)

    transport: Literal["stdio", "streamable_http", "sse", "websocket"]
    tools: list[str] | None = None
    required: bool = True
    call_timeout: float | int | None = Field(default=None, gt=0)


class ToolsFile(Strict):
    tools: dict[Name, ToolSpec] = Field(default_factory=dict)
    mcp_servers: dict[Name, McpServerSpec] = Field(default_factory=dict)


# --- graphs/*.yaml ---------------------------------------------------------------------------------


class StateKey(Strict):
    """A state channel. `type` is a word of the format or `module:Class`; `reducer` a word or `module:function`."""

    type: str = "any"
    default: Any = None
    reducer: str | None = None


class NodeSpec(Strict):
    """A node: exactly one of `python`, `agent`, `graph`, `tools`, `interrupt`."""

    python: Ref | None = None
    agent: Name | None = None
    graph: Name | None = None
    tools: list[str] | None = None
    interrupt: str | dict[str, Any] | list[Any] | None = None
    handoffs: list[str] = Field(default_factory=list)
    save: str | None = None
    input: dict[str, str] | None = None
    output: dict[str, str] | None = None
    retry_policy: dict[str, Any] | None = None
    cache_policy: dict[str, Any] | None = None
    timeout: float | int | None = None
    defer: bool = False
    error_handler: Ref | None = None
    destinations: list[str] | dict[str, str] | None = None
    metadata: dict[str, Any] | None = None


class EdgeSpec(Strict):
    """An edge. `switch` reads a state key, `route` calls Python; without either it always leads to `to`."""

    from_: OneOrMany = Field(alias="from")
    to: str | list[str] | dict[str, OneOrMany] | None = None
    switch: str | None = None
    route: Ref | None = None


class GraphFile(Strict):
    description: str = ""
    state: dict[str, str | StateKey] | Ref
    input: list[str] | None = None
    output: list[str] | None = None
    context: dict[str, str] | Ref | None = None
    nodes: dict[str, NodeSpec]
    edges: list[EdgeSpec]
    interrupt_before: list[str] = Field(default_factory=list)
    interrupt_after: list[str] = Field(default_factory=list)
    config: dict[str, Any] = Field(default_factory=dict)
    threads: ThreadPolicy = "auto"


# --- prompts/*.md ----------------------------------------------------------------------------------


class PromptVariable(Strict):
    default: Any = None


class PromptHead(Strict):
    """Front matter of a prompt. A variable without `default` must be given by the caller or the context."""

    description: str = ""
    variables: dict[str, PromptVariable] = Field(default_factory=dict)


# --- changeover.yaml -------------------------------------------------------------------------------

SHORTEST_S = 0.05  # that something may be polled, or given as its deadline


def _is_time(amount: Amount) -> Amount:
    duration_of_at_least(SHORTEST_S)(amount)
    return amount


Time = Annotated[Amount, AfterValidator(_is_time)]
"""A duration that is more than nothing."""


class HealthSpec(Strict):
    """How often a plugin's `health_check` is called, and how long it may take."""

    every: Time | None = None
    timeout: Time | None = None


class PluginSpec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    class_: Ref = Field(alias="class")
    config: dict[str, Any] = Field(default_factory=dict)
    scope: Literal["version", "server"] = "version"
    required: bool = True
    deadline: Time | None = None  # of each hook
    health: HealthSpec | None = None


class WatchSection(Strict):
    auto: str | bool | None = None
    quiet: Amount | None = None
    poll: Amount | bool | None = None


class RolloutSection(Strict):
    drain: Literal["after", "before"] | None = None
    in_flight: Literal["finish", "handover", "cancel"] | None = None
    finish: Amount | None = None
    handover: Amount | None = None
    cancel: Amount | None = None
    threads: ThreadPolicy | None = None


class KeepSection(Strict):
    versions: int | None = None
    for_: Amount | None = Field(default=None, alias="for")
    loaded: int | None = None
    sweep: Amount | None = None
    usage: Amount | None = None


class LimitsSection(Strict):
    file: Amount | None = None
    version: Amount | None = None
    body: Amount | None = None
    build: Amount | None = None
    install: Amount | None = None
    step: Amount | None = None


class RunsSection(Strict):
    concurrency: int | None = None
    lease: Amount | None = None
    max_attempts: int | None = None
    webhook_private: bool | None = None


class EditSection(Strict):
    python: bool | None = None


class LangGraphSection(Strict):
    """What of a langgraph.json is left out with full knowledge, although its author wanted it for safety."""

    without: list[Literal["auth", "encryption"]] = Field(default_factory=list)


class ServerSection(Strict):
    host: str | None = None
    port: int | None = None
    workers: int | None = None
    cors: list[str] | None = None


AlertName = Literal[  # the names of `changeover.alerts`
    "version_rejected",
    "drain_stalled",
    "run_dead",
    "resource_degraded",
    "resource_recovered",
    "resource_drifted",
    "rolled_back",
    "switched",
    "promotion_refused",
    "switch_vetoed",
    "hook_failed",
    "migration_refused",
    "migration_failed",
    "handover_refused",
    "environment_rejected",
    "cron_failed",
    "webhook_failed",
    "*",
]


class AlertSpec(Strict):
    """Somebody who is told of these events, at an address that should be written `${NAME}`."""

    url: Annotated[str, StringConstraints(min_length=1)]
    on: Annotated[list[AlertName], Field(min_length=1)]


class ChangeoverFile(Strict):
    """changeover.yaml: `include`, `plugins` and `langgraph` are part of a version, the rest is how the server runs.

    The values of the server's sections are read by `changeover.settings`, which knows their units and defaults.
    """

    include: list[str] = Field(default_factory=list)
    plugins: dict[Name, PluginSpec] = Field(default_factory=dict)
    langgraph: LangGraphSection = Field(default_factory=LangGraphSection)
    watch: WatchSection = Field(default_factory=WatchSection)
    rollout: RolloutSection = Field(default_factory=RolloutSection)
    keep: KeepSection = Field(default_factory=KeepSection)
    requirements: Literal["install", "check", "off"] | None = None
    smoke: dict[str, Any] | None = None
    limits: LimitsSection = Field(default_factory=LimitsSection)
    runs: RunsSection = Field(default_factory=RunsSection)
    edit: EditSection = Field(default_factory=EditSection)
    alerts: list[AlertSpec] = Field(default_factory=list)
    server: ServerSection = Field(default_factory=ServerSection)
