"""The application: middlewares and routes over one manager.

```python
app = create_app(manager)                 # to run
other.mount("/agents", create_app(manager))   # or as a part of another application
```
Owns no state but what `app.state` holds: the manager, and whether the server stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import changeover
from changeover.manager import GraphVersionManager
from changeover.server import health, openapi, problems, security, tracing
from changeover.server.admin import (
    backup,
    events,
    folder,
    graphs,
    interrupts,
    migrations,
    operations,
    resources,
    routing,
    runs,
    threads,
    usage,
    versions,
)
from changeover.server.feed import Feed
from changeover.server.idempotency import Idempotency
from changeover.server.langgraph import assistants, crons, execution, feedback, following, joining
from changeover.server.langgraph import runs as langgraph_runs
from changeover.server.langgraph import store as langgraph_store
from changeover.server.langgraph import threads as langgraph_threads
from changeover.server.langgraph.v3 import routes as protocol
from changeover.server.langserve import routes as langserve
from changeover.server.opening import Opened, Opening
from changeover.server.page_headers import PageHeaders
from changeover.server.sessions import Sessions
from changeover.server.texts import WholeText
from changeover.server.ui import app as ui
from changeover.settings import environment


def create_app(manager: GraphVersionManager) -> FastAPI:
    """The HTTP side of a manager. Whoever opened the manager closes it.

    If nobody did, the first request opens it, and the end of the lifespan closes it; a mounted application has none, so
    that the one it is mounted in should open and close the manager.
    """
    opening = Opening(manager)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        app.state.stopping.set()
        await feed.close()
        await opening.close()

    app = FastAPI(
        title="changeover", version=changeover.__version__, docs_url="/docs", redoc_url=None, lifespan=lifespan
    )
    app.state.manager = manager
    app.state.stopping = asyncio.Event()
    feed = Feed(manager, app.state.stopping)
    problems.install(app)
    execution.install(app, manager)  # first, since routes are tried in their order
    joining.install(app, manager)
    following.install(app, manager)
    protocol.install(app, manager, app.state.stopping)
    app.include_router(langgraph_runs.router(manager))
    app.include_router(crons.router(manager))
    app.include_router(feedback.router(manager))
    app.include_router(langgraph_threads.router(manager))
    app.include_router(assistants.router(manager))
    app.include_router(langgraph_store.router(manager))
    parts = (
        backup,
        versions,
        folder,
        graphs,
        routing,
        operations,
        migrations,
        runs,
        threads,
        interrupts,
        usage,
        resources,
    )
    for part in parts:
        app.include_router(part.router(manager, app.state.stopping), prefix="/admin", tags=["administration"])
    app.include_router(events.router(manager, feed), prefix="/admin", tags=["administration"])
    app.include_router(health.router(manager, app.state.stopping))
    sessions = Sessions(manager.settings.token)
    ui.install(app, manager.settings.token, sessions, app.state.stopping)
    app.include_router(langserve.router(manager))  # last: its first segment is the name of any graph
    openapi.install(app, asks_token=bool(manager.settings.token))
    app.add_middleware(Idempotency, manager=manager)
    app.add_middleware(WholeText)
    tracing.install(app, environment())  # within what opens the manager, which is no part of anybody's trace
    app.add_middleware(Opened, opening=opening)
    app.add_middleware(problems.Border)
    security.install(app, manager.settings, sessions)
    app.add_middleware(PageHeaders)
    return app
