"""A real browser on a real server: Debian's Chromium, driven by Playwright. It fails where the browser complains."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

from js_support import installed_javascript

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (  # no word to anybody: a browser asks its makers for much by itself
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WAIT_MS = 15_000
SERIOUS = ("serious", "critical")

expect.set_options(timeout=WAIT_MS)


class Visitor:
    """A page of a browser, and all that it complained of."""

    def __init__(self, page: Page, complaints: list[str]) -> None:
        self.page = page
        self.complaints = complaints
        self.allowed: list[str] = []  # parts of complaints that a test expects

    def demand_no_complaint(self) -> None:
        left = [one for one in self.complaints if not any(part in one for part in self.allowed)]
        assert not left, left

    async def serious_findings(self, *rules: str) -> list[dict[str, Any]]:
        """What axe-core finds to keep people from using the page as it is now; by these rules alone, if any."""
        source = (installed_javascript() / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
        await self.page.evaluate(source)
        asked = {"resultTypes": ["violations"], **({"runOnly": rules} if rules else {})}
        found = await self.page.evaluate("asked => axe.run(document, asked)", asked)
        return [
            {"id": one["id"], "help": one["help"], "nodes": [node["html"] for node in one["nodes"]][:5]}
            for one in found["violations"]
            if one["impact"] in SERIOUS
        ]


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        assert "CI" not in os.environ, "no Chromium is installed: the page cannot be tested (see .ci/browser)"
        pytest.skip("no Chromium is installed: `.ci/browser` installs that of the distribution")
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=program, args=[*QUIET])
        yield opened
        await opened.close()


@pytest.fixture
def visit(browser: Browser) -> Any:
    """`async with visit(url) as visitor`: a browser at an address, with nothing to complain of at the end."""

    @asynccontextmanager
    async def visiting(url: str, path: str = "/ui/", **options: Any) -> AsyncIterator[Visitor]:
        context = await browser.new_context(base_url=url, **options)
        context.set_default_timeout(WAIT_MS)
        page = await context.new_page()
        visitor = Visitor(page, _listening(page, urlsplit(url).netloc))
        await page.goto(path)
        yield visitor
        visitor.demand_no_complaint()
        await context.close()

    return visiting


def _listening(page: Page, host: str) -> list[str]:
    complaints: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            complaints.append(f"console: {message.text}")

    def asked(request: Request) -> None:
        if urlsplit(request.url).netloc not in (host, "") and not request.url.startswith("data:"):
            complaints.append(f"asked another host: {request.url}")

    page.on("console", said)
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("request", asked)
    return complaints
