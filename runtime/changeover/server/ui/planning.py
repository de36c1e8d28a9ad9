"""What a switch would do, and the switch or the ramp from there.

What is switched is what was looked at: the form carries the version, the graphs and the policy of the plan, and the
revision of the routing that it was made for. A refusal comes back to the plan, with what can be done about it.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from changeover.server.ui.api import Api, Json, Refused, together
from changeover.server.ui.comparing import versions_offered
from changeover.server.ui.pages import Pages
from changeover.server.ui.serving import routing_of
from changeover.server.ui.shown import segment

WAIT_S = 45.0  # that a browser is let wait for a drain before the switch, unless somebody says how long
ELSEWHERE = ("nothing-current", "unknown-version", "unknown-graph", "invalid-version", "version-rejected")
"""Refusals after which there is no plan to come back to."""

BLANK = dict.fromkeys(("in_flight", "drain", "timeout_s", "reason", "percent"), "")

Policy = Literal["", "auto", "pinned", "eager"]
Graphs = Annotated[list[str], Field(max_length=1000)]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which switch is meant, as a plan and a switch both need it."""

    to: str
    graphs: tuple[str, ...] = ()
    threads: str = ""

    def body(self) -> Json:
        body: Json = {"to": self.to}
        if self.graphs:
            body["graphs"] = list(self.graphs)
        return body | ({"threads": self.threads} if self.threads else {})


class SwitchForm(BaseModel):
    to: Annotated[str, Field(min_length=1, max_length=255)]
    revision: Annotated[int, Field(ge=0)]
    key: Annotated[str, Field(min_length=1, max_length=255)]
    graph: Graphs = []
    threads: Policy = ""
    in_flight: Literal["", "finish", "handover", "cancel"] = ""
    drain: Literal["", "after", "before"] = ""
    timeout_s: Annotated[str, Field(max_length=20)] = ""
    reason: Annotated[str, Field(max_length=1000)] = ""
    force: bool = False

    def wanted(self) -> Wanted:
        return Wanted(self.to, tuple(self.graph), self.threads)

    def body(self) -> Json:
        body = self.wanted().body() | {"reason": self.reason}
        for name in ("in_flight", "drain"):
            if getattr(self, name):
                body[name] = getattr(self, name)
        if self.timeout_s.strip():
            body["timeout_s"] = _number(self.timeout_s)
        elif self.drain == "before":
            body["timeout_s"] = WAIT_S
        return body | ({"force": True} if self.force else {})


class RampForm(BaseModel):
    to: Annotated[str, Field(min_length=1, max_length=255)]
    revision: Annotated[int, Field(ge=0)]
    key: Annotated[str, Field(min_length=1, max_length=255)]
    percent: Annotated[str, Field(max_length=20)]
    reason: Annotated[str, Field(max_length=1000)] = ""
    force: bool = False

    def body(self) -> Json:
        body: Json = {"to": self.to, "percent": _number(self.percent), "reason": self.reason}
        return body | ({"force": True} if self.force else {})


def router(pages: Pages) -> APIRouter:
    routes = APIRouter()

    @routes.get("/plan")
    async def plan(
        request: Request,
        to: str = "",
        graph: Annotated[Graphs, Query()] = [],  # noqa: B006 - fastapi copies it
        threads: Policy = "",
    ) -> Response:
        api = pages.api(request)
        wanted = Wanted(to, tuple(filter(None, graph)), threads)
        return pages.plain(request, "plan.html", **await _plan(api, wanted))

    @routes.get("/switch")
    @routes.get("/ramp")
    async def planned_first(request: Request) -> Response:
        """Who signed in anew on the way to a switch, or opened its address, has a look at its plan first."""
        return pages.to(request, "plan")

    @routes.post("/switch")
    async def switch(request: Request, form: Annotated[SwitchForm, Form()]) -> Response:
        api = pages.api(request)
        try:
            receipt = await api.post("/admin/switch", form.body(), _headers(form))
        except Refused as refused:
            return await back(request, refused, form.wanted(), form.model_dump())
        return pages.to(request, f"operations/{segment(receipt['operation'])}")

    @routes.post("/ramp")
    async def ramp(request: Request, form: Annotated[RampForm, Form()]) -> Response:
        api = pages.api(request)
        try:
            receipt = await api.post("/admin/ramp", form.body(), _headers(form))
        except Refused as refused:
            return await back(request, refused, Wanted(form.to), form.model_dump())
        return pages.to(request, f"operations/{segment(receipt['operation'])}")

    async def back(request: Request, refused: Refused, wanted: Wanted, given: Json) -> Response:
        """The plan as it is now, above it what was refused, and the form as it was filled in."""
        if refused.code in ELSEWHERE:
            raise refused
        tells = await _plan(pages.api(request), wanted, refused.problem, given)
        return pages.plain(request, "plan.html", refused.status, **tells)

    return routes


async def _plan(api: Api, wanted: Wanted, refusal: Json | None = None, given: Json | None = None) -> Json:
    """`refusal` is the problem of a switch that was not made, `given` what its form had."""
    offered, routing = await together(versions_offered(api), routing_of(api))
    told: Json = {
        "wanted": asdict(wanted),
        "offered": offered,
        "routing": routing,
        "refusal": refusal,
        "given": {**BLANK, **(given or {})},
        "advice": _advice(refusal),
        "wait_s": WAIT_S,
        "would": None,
        "version": None,
        "graphs": [],
        "offers_force": False,
    }
    if not wanted.to:
        return told
    planned, version = await together(
        api.post("/admin/plan", wanted.body()), api.get(f"/admin/versions/{segment(wanted.to)}")
    )
    if refusal and "plan" in refusal:  # with the policy that was refused: a ramp goes by that of the last switch
        planned |= {name: refusal["plan"][name] for name in ("graphs", "threads", "steps", "breaks")}
    return {
        **told,
        "would": {"plan": planned},
        "version": version,
        "graphs": sorted(version["graphs"]),
        "offers_force": planned["breaks"],
        "keys": [uuid.uuid4().hex, uuid.uuid4().hex],
    }


def _advice(refusal: Json | None) -> str:
    """What can be done about a refusal, on this page."""
    told = {
        "would-break-threads": "Plan it with the policy auto, which leaves such threads where they are; write a step"
        " of migration; or force it below, if these threads may be lost.",
        "routing-changed": "Somebody else changed what is served after this page was made. The plan below is made anew:"
        " look at it and decide again.",
        "idempotency-under-way": "What you asked for first is under way; Operations shows how it gets on. Nothing more"
        " is to be done.",
        "vetoed": "Nothing was switched. What the hook says has to be mended first; no force goes around a hook.",
    }
    return told.get(str((refusal or {}).get("code")), "")


def _headers(form: SwitchForm | RampForm) -> dict[str, str]:
    return {"If-Match": f'"{form.revision}"', "Idempotency-Key": form.key}


def _number(told: str) -> float | str:
    """A number of a form; what is none is sent as it is, for the API to say what is wrong with it."""
    told = told.strip().replace(",", ".")
    try:
        found = float(told)
    except ValueError:
        return told
    return found if isfinite(found) else told
