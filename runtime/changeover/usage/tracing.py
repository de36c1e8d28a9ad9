"""Where spans go: OpenTelemetry, as the variables `OTEL_*` of the process say.

Owns a provider of its own, set up from those variables; where the process has one already (`opentelemetry-instrument`,
or a program that embeds us) that one is used, and left to its owner. Nothing of OpenTelemetry is imported, and nothing
is done for a run, where no variable asks for it. What keeps spans from being sent never keeps a run from its work.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import changeover

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

INSTALL = "pip install 'changeover[otel]'"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
EXPORTER = "OTEL_TRACES_EXPORTER"
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
NAMES = ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES")
DISABLED = "OTEL_SDK_DISABLED"
CLOSE_WAIT_S = 5.0


class Tracing:
    """A tracer, and the provider behind it where that is ours to close."""

    def __init__(self, tracer: Tracer, provider: Any) -> None:
        self.tracer = tracer
        self._provider = provider

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Tracing | None:
        """What the variables ask for; None where they ask for nothing, or what they ask for cannot be had."""
        names = exporters(environ)
        if not names:
            return None
        try:
            return cls._of(environ, names)
        except ImportError:
            _not_installed(names)
        except Exception as error:  # border: OpenTelemetry, which reads variables, and code of who made an exporter
            log.warning("spans_not_set_up", extra={"error": type(error).__name__, "hint": "see the variables OTEL_*"})
        return None

    @classmethod
    def _of(cls, environ: Mapping[str, str], names: list[str]) -> Tracing | None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace import get_tracer_provider

        given = get_tracer_provider()
        if isinstance(given, TracerProvider):
            return cls(given.get_tracer("changeover", changeover.__version__), None)
        provider = _provider(environ, names)
        return None if provider is None else cls(provider.get_tracer("changeover", changeover.__version__), provider)

    @staticmethod
    def caller() -> Context:
        """The span that the caller is in, of this process or of another that named its own in the request."""
        from opentelemetry.context import get_current

        return get_current()

    async def close(self) -> None:
        """Send what was not sent yet; give it up after `CLOSE_WAIT_S`."""
        provider, self._provider = self._provider, None
        if provider is None:
            return
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def shut_down() -> None:
            try:
                provider.shutdown()
            finally:
                with suppress(RuntimeError):  # the loop is gone: nobody waits
                    loop.call_soon_threadsafe(done.set)

        # no thread of a pool: the process would wait at its end for one that a collector keeps waiting
        threading.Thread(target=shut_down, name="changeover-spans", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), CLOSE_WAIT_S)
        except TimeoutError:
            log.warning("spans_not_sent", extra={"hint": "the collector did not answer in time"})


def exporters(environ: Mapping[str, str]) -> list[str]:
    """The exporters that the variables name; none where spans are not asked for."""
    if environ.get(DISABLED, "").strip().lower() == "true":
        return []
    named = [name.strip() for name in environ.get(EXPORTER, "").split(",") if name.strip()]
    if not named and any(environ.get(endpoint) for endpoint in ENDPOINTS):
        named = ["otlp"]
    return [_entry_of(name, environ) for name in named if name != "none"]


def _entry_of(name: str, environ: Mapping[str, str]) -> str:
    if name != "otlp":
        return name
    protocol = next((environ[variable] for variable in PROTOCOLS if environ.get(variable)), "http/protobuf")
    return "otlp_proto_grpc" if protocol.strip() == "grpc" else "otlp_proto_http"


def _provider(environ: Mapping[str, str], names: list[str]) -> Any:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    found = {entry.name: entry for entry in entry_points(group="opentelemetry_traces_exporter") if entry.name in names}
    missing = [name for name in names if name not in found]
    if missing:
        _not_installed(missing)
        return None
    is_named = "service.name" in environ.get(NAMES[1], "") or bool(environ.get(NAMES[0]))
    resource = Resource.create({} if is_named else {"service.name": "changeover"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    try:
        for name, entry in found.items():
            provider.add_span_processor(BatchSpanProcessor(_exporter(name, entry.load())))
    except BaseException:
        provider.shutdown()
        raise
    return provider


def _exporter(name: str, kind: Any) -> Any:
    # what a command answers is alone on its standard output
    return kind(out=sys.stderr) if name == "console" else kind()


def _not_installed(what: list[str]) -> None:
    log.warning(
        "spans_need_a_package", extra={"exporter": ", ".join(what), "hint": f"{INSTALL}, or unset the variables OTEL_*"}
    )
