"""Who serves at this moment, for pages that say which version is current: one row, where the whole status is many."""

from __future__ import annotations

from changeover.server.ui.api import Api, Json, Refused


async def routing_of(api: Api) -> Json:
    """The routing; nothing before the first version serves."""
    try:
        return dict(await api.get("/admin/routing"))
    except Refused as refused:
        if refused.code != "nothing-current":
            raise
        return {}
