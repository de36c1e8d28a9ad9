"""Pictures of every page, of a help desk in the middle of a day: `make pictures` puts them into build/pictures.

    python tests/ui/pictures.py [FOLDER]      for a desktop, light and dark, and for a phone; FOLDER is made anew

Runs of the last hour are made up, so that the plots of the overview have something to show.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from busy_desk import BusyDesk, furnish, open_busy_desk
from playwright.async_api import Browser, Page, async_playwright

from changeover import GraphVersionManager
from changeover.server.serve import serve

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = ("agents.yaml", "tools.yaml", "prompts", "graphs")
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 800}
KINDS = {"light": (DESKTOP, "light"), "dark": (DESKTOP, "dark"), "phone": (PHONE, "light")}
TALLEST_PX = 4_000
EDGES_S = ("0.56", "0.68", "0.82", "1.0", "1.2", "1.5", "1.8", "2.2", "2.7", "3.3", "3.9", "4.7")
HOUR_MINUTES = 60
SETTLES = 100
UNDER_WAY = """[...document.querySelectorAll('[data-graph]')].some(one => one.offsetParent && !one.querySelector('svg'))
  || document.querySelector('.htmx-request, [hx-trigger=load]:empty') !== null"""


async def main(to: Path) -> None:
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        sys.exit("no Chromium is installed: `make browser` installs that of the distribution")
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as place:
        folder, gate = Path(place) / "desk", Path(place) / "gate"
        _copy_project(folder)
        furnish(folder, gate)
        said: asyncio.Queue[str] = asyncio.Queue()
        stop = asyncio.Event()
        server = asyncio.create_task(serve(GraphVersionManager.open(folder, port=0), said.put_nowait, stop))
        try:
            url = (await asyncio.wait_for(said.get(), 60)).rsplit(" at ", 1)[1]
            desk = await open_busy_desk(url, folder)
            _make_up_an_hour(folder / ".changeover" / "changeover.db", desk)
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
                for kind in KINDS:
                    await _take(browser, url, desk, kind, to)
                await browser.close()
        finally:
            gate.touch()
            stop.set()
            await server
    print(f"{len(list(to.iterdir()))} pictures are in {to}")


async def _take(browser: Browser, url: str, desk: BusyDesk, kind: str, to: Path) -> None:
    size, scheme = KINDS[kind]
    page = await browser.new_page(base_url=url, viewport=size, color_scheme=scheme)
    for name, path in desk.pages.items():
        await page.goto(f"/ui/{path}")
        await _settle(page)
        height = await page.evaluate("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(max(height, size["height"]), TALLEST_PX)}
        await page.screenshot(path=to / f"{name}-{kind}.png", full_page=True, clip=clip)
    await page.close()


async def _settle(page: Page) -> None:
    """Drawings are made, and differences fetched."""
    await page.wait_for_load_state("load")
    for _ in range(SETTLES):
        if not await page.evaluate(UNDER_WAY):
            break
        await page.wait_for_timeout(50)
    await page.wait_for_timeout(150)


def _copy_project(folder: Path) -> None:
    folder.mkdir()
    for name in PROJECT:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)


def _make_up_an_hour(database: Path, desk: BusyDesk) -> None:
    """Rows of usage as if people had talked with the versions for an hour, one version after another."""
    with sqlite3.connect(database) as connection:
        connection.execute("DELETE FROM usage WHERE at > 0")
        connection.executemany(f"INSERT OR REPLACE INTO usage VALUES ({', '.join('?' * 14)})", list(_rows(desk)))
    connection.close()


def _rows(desk: BusyDesk) -> Iterator[tuple[object, ...]]:
    dice = random.Random(7)
    now = int(time.time()) // 60 * 60
    for minute in range(HOUR_MINUTES):
        at = now - 60 * (HOUR_MINUTES - 1 - minute)
        everybody = 34 + 9 * dice.random() + minute / 6
        first = 1.0 if minute < 26 else max(0.0, 1 - (minute - 26) / 5)
        ramping = 0.2 if minute >= 44 else 0.0
        shares = {desk.first: first, desk.current: (1 - first) * (1 - ramping), desk.ramping: (1 - first) * ramping}
        for slow, (version, share) in enumerate(shares.items()):
            runs = round(everybody * share)
            if not runs:
                continue
            errors = sum(dice.random() < (0.03, 0.012, 0.02)[slow] for _ in range(runs))
            tokens_in, tokens_out = runs * dice.randint(380, 460), runs * dice.randint(70, 95) * (4 - slow) // 4
            yield (at, version, "support", "run", "", "", runs, errors, 0, runs // 20, 0, runs * 1.4, 0, 0)
            yield (
                at,
                version,
                "support",
                "model",
                "support",
                "demo:rules",
                2 * runs,
                0,
                0,
                0,
                0,
                runs * 1.2,
                tokens_in,
                tokens_out,
            )
            buckets = [
                EDGES_S[min(len(EDGES_S) - 1, int(abs(dice.gauss(3.4 - slow, 1.9 - slow / 3))))] for _ in range(runs)
            ]
            for edge in sorted(set(buckets)):
                yield (at, version, "support", "latency", "", edge, buckets.count(edge), 0, 0, 0, 0, 0.0, 0, 0)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "build" / "pictures"))
