"""Each way in which a file is saved is one moment, ignored files are none, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from changeover.rollout import posts
from changeover.rollout.watch import FolderWatcher

DEADLINE_S = 5.0
SILENCE_S = 0.35  # long enough for a moment that should not come


def write(folder: Path, path: str, text: str = "x") -> Path:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    write(folder, "agents.yaml")
    write(folder, "prompts/support.md")
    write(folder, "graphs/nodes.py")
    return folder


class Moments:
    """The moments of a watcher, one at a time."""

    def __init__(self, watcher: FolderWatcher) -> None:
        self.watcher = watcher
        self._moments = watcher.moments()

    async def next(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            await anext(self._moments)

    async def count(self, within_s: float = SILENCE_S) -> int:
        """How many more come in this time."""
        found = 0
        ends = time.monotonic() + within_s
        waiting = asyncio.ensure_future(anext(self._moments))
        while (left := ends - time.monotonic()) > 0:
            done, _ = await asyncio.wait({waiting}, timeout=left)
            if done:
                found += 1
                waiting = asyncio.ensure_future(anext(self._moments))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        self._moments = self.watcher.moments()
        return found


@asynccontextmanager
async def watching(folder: Path, **options: Any) -> AsyncIterator[Moments]:
    before = set(threading.enumerate())
    async with FolderWatcher(folder, **{"quiet_s": 0.05, "check_s": 0.05, **options}) as watcher:
        yield Moments(watcher)
    left = [thread for thread in threading.enumerate() if thread not in before]
    assert [thread for thread in left if not thread.name.startswith("asyncio_")] == []  # the tests' own `to_thread`
    assert [task for task in asyncio.all_tasks() if task.get_name() == "changeover-watch"] == []


# --- how files are saved


def in_place(file: Path) -> None:
    file.write_text("in place")


def renamed_over(file: Path) -> None:
    write(file.parent, ".support.tmp", "renamed").rename(file)


def vim(file: Path) -> None:
    write(file.parent, "4913").unlink()
    file.rename(f"{file}~")
    file.write_text("vim")
    Path(f"{file}~").unlink()


def moved_in_from_elsewhere(file: Path) -> None:
    write(file.parents[2], "elsewhere.md", "moved").rename(file)


def truncated_then_written(file: Path) -> None:
    with open(file, "w") as opened:
        opened.flush()
        time.sleep(0.02)
        opened.write("in two steps")


def deleted(file: Path) -> None:
    file.unlink()


def made_elsewhere_then_linked(file: Path) -> None:
    os.link(write(file.parents[2], "elsewhere.md", "linked"), file.with_name("hard.md"))


SAVES = [in_place, renamed_over, vim, moved_in_from_elsewhere, truncated_then_written, deleted]


@pytest.mark.parametrize("poll_s", [None, 0.03], ids=["events", "polling"])
@pytest.mark.parametrize("save", [*SAVES, made_elsewhere_then_linked], ids=lambda save: save.__name__)
@pytest.mark.parametrize("path", ["agents.yaml", "prompts/support.md"])
async def test_a_save_is_noticed(project: Path, save: Callable[[Path], None], path: str, poll_s: float | None) -> None:
    if save is made_elsewhere_then_linked and path == "agents.yaml":
        path = "graphs/nodes.py"
    file = project / path
    async with watching(project, poll_s=poll_s) as moments:
        await asyncio.to_thread(save, file)
        await moments.next()


async def test_saves_in_a_burst_are_one_moment(project: Path) -> None:
    async with watching(project) as moments:
        for save in (in_place, renamed_over, vim):
            save(project / "prompts/support.md")
        assert await moments.count() == 1


async def test_500_saves_in_a_second_are_few_moments_and_the_last_bytes_are_seen(project: Path) -> None:
    file = project / "prompts/support.md"

    def save_often() -> None:
        started = time.monotonic()
        for number in range(500):
            write(project, "prompts/.next.tmp", str(number)).rename(file)
            time.sleep(max(0.0, started + number / 500 - time.monotonic()))

    seen: list[str] = []
    async with watching(project, quiet_s=0.1) as moments:
        saving = asyncio.create_task(asyncio.to_thread(save_often))
        async with asyncio.timeout(DEADLINE_S):
            while not seen or seen[-1] != "499":
                await moments.next()
                seen.append(file.read_text())
        await saving
    assert len(seen) <= 2


async def test_a_stream_of_saves_that_never_pauses_is_answered_now_and_then(project: Path) -> None:
    stop = threading.Event()

    def save_always() -> None:
        while not stop.wait(0.01):
            write(project, "prompts/support.md", str(time.monotonic()))

    async with watching(project, quiet_s=0.2, max_wait_s=0.4) as moments:
        saving = asyncio.create_task(asyncio.to_thread(save_always))
        try:
            await moments.next()
            await moments.next()
        finally:
            stop.set()
            await saving


async def test_changes_while_the_consumer_is_busy_wait_as_one(project: Path) -> None:
    async with watching(project) as moments:
        in_place(project / "agents.yaml")
        await moments.next()
        for number in range(5):  # nobody waits for moments here
            write(project, "prompts/support.md", str(number))
            await asyncio.sleep(0.08)
        assert await moments.count() == 1


async def test_a_checkout_of_many_files_is_a_moment_after_the_last(project: Path) -> None:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")

    def run(*words: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run([git, *identity, *words], cwd=project, check=True, capture_output=True)

    run("init", "-q", "-b", "one")
    for name in ("one", "two"):
        for number in range(300):
            write(project, f"prompts/deep/{number % 7}/{number}.md", f"{name} {number}")
        run("checkout", "-q", "-B", name)
        run("add", ".")
        run("commit", "-q", "-m", name)
    async with watching(project, quiet_s=0.1) as moments:
        await asyncio.to_thread(run, "checkout", "-q", "one")
        await moments.next()
        texts = [file.read_text() for file in (project / "prompts/deep").rglob("*.md")]
        assert len(texts) == 300
        assert all(text.startswith("one") for text in texts)
        assert await moments.count() <= 1


@pytest.mark.parametrize("poll_s", [None, 0.03], ids=["events", "polling"])
async def test_a_config_map_swap_is_noticed_each_time(tmp_path: Path, poll_s: float | None) -> None:
    def swap(number: int) -> None:
        write(tmp_path, f"..{number}/agents.yaml", str(number))
        write(tmp_path, f"..{number}/prompts/a.md", str(number))
        (tmp_path / "..data_tmp").symlink_to(f"..{number}")
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        if number:
            shutil.rmtree(tmp_path / f"..{number - 1}")

    swap(0)
    for name in ("agents.yaml", "prompts"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    async with watching(tmp_path, poll_s=poll_s) as moments:
        for number in (1, 2, 3):
            swap(number)
            await moments.next()
            assert (tmp_path / "agents.yaml").read_text() == str(number)


# --- what matters and what does not


@pytest.mark.parametrize("poll_s", [None, 0.03], ids=["events", "polling"])
async def test_what_is_in_no_version_makes_no_moment(project: Path, poll_s: float | None) -> None:
    write(project, ".gitignore", "*.log\n")
    for path in (".changeover/changeover.db", ".git/index", "prompts/.support.md.swp", "README.md", "other/a.txt"):
        write(project, path)
    async with watching(project, poll_s=poll_s) as moments:
        await moments.count(0.1)  # files this new are looked at twice where they are polled
        for path in (".changeover/changeover.db", ".git/index", "graphs/__pycache__/a.pyc", "prompts/.support.md.swp"):
            write(project, path, "changed")
        for path in ("README.md", "other/a.txt", "graphs/out.log", ".venv/lib/a.py", "4913"):
            write(project, path, "changed")
        for file in project.rglob("*.md"):
            file.read_text()
        assert await moments.count() == 0


@pytest.mark.parametrize("path", [".env", "changeover.yaml", ".gitignore", "requirements.txt", "tools.yaml"])
@pytest.mark.parametrize("poll_s", [None, 0.03], ids=["events", "polling"])
async def test_files_beside_the_folders_are_noticed(project: Path, path: str, poll_s: float | None) -> None:
    async with watching(project, poll_s=poll_s) as moments:
        write(project, path, "A: 1")
        await moments.next()
        await moments.count(0.15)
        write(project, path, "A: 2")
        await moments.next()


async def test_a_huge_ignored_folder_costs_no_watches(project: Path) -> None:
    write(project, ".gitignore", "/frontend/build/\n")
    write(project, "changeover.yaml", "include: ['.']")
    for number in range(300):
        write(project, f".venv/lib/{number}/a.py")
        write(project, f"frontend/node_modules/{number}/a.js")
        write(project, f"frontend/build/{number}/a.js")
    write(project, "frontend/src/deep/a.py")

    def watches() -> int:
        found = 0
        for descriptor in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{descriptor}") == "anon_inode:inotify":
                    found += Path(f"/proc/self/fdinfo/{descriptor}").read_text().count("inotify wd:")
            except OSError:
                continue
        return found

    before = watches()
    async with watching(project) as moments:
        assert 0 < watches() - before <= 10
        write(project, "frontend/src/deep/a.py", "changed")
        await moments.next()
        write(project, "frontend/node_modules/0/a.js", "changed")
        write(project, "frontend/build/0/a.js", "changed")
        assert await moments.count() == 0


# --- folders that come and go


async def test_a_folder_that_appears_later_is_watched(project: Path) -> None:
    shutil.rmtree(project / "prompts")
    async with watching(project) as moments:
        write(project, "prompts/shared/tone.md")
        await moments.next()
        await moments.count(0.1)
        write(project, "prompts/shared/tone.md", "changed")
        await moments.next()


async def test_a_folder_included_later_is_watched(project: Path) -> None:
    write(project, "data/kb.txt")
    async with watching(project) as moments:
        write(project, "data/kb.txt", "unnoticed")
        assert await moments.count() == 0
        write(project, "changeover.yaml", "include: [data]")
        await moments.next()
        await moments.count(0.1)
        write(project, "data/kb.txt", "noticed")
        await moments.next()


async def test_a_folder_replaced_by_another_is_watched(project: Path) -> None:
    async with watching(project) as moments:
        for number in range(3):
            shutil.rmtree(project / "prompts")
            write(project, "prompts/support.md", str(number))
            await moments.next()
            await moments.count(0.15)
            write(project, "prompts/support.md", "again")
            await moments.next()


async def test_linked_folders_and_files_are_watched_where_they_lead(project: Path) -> None:
    write(project, "elsewhere/prompts/a.md")
    write(project, "elsewhere/other/tools.yaml")
    shutil.rmtree(project / "prompts")
    (project / "prompts").symlink_to("elsewhere/prompts")
    (project / "tools.yaml").symlink_to("elsewhere/other/tools.yaml")
    async with watching(project) as moments:
        for path in ("elsewhere/prompts/a.md", "elsewhere/other/tools.yaml", "elsewhere/prompts/b.md"):
            write(project, path, "changed")
            await moments.next()


@pytest.mark.parametrize("poll_s", [None, 0.03], ids=["events", "polling"])
async def test_a_project_that_is_deleted_and_made_again_is_watched(project: Path, poll_s: float | None) -> None:
    async with watching(project, poll_s=poll_s) as moments:
        for number in range(2):
            shutil.rmtree(project)
            await moments.next()
            await moments.count(0.15)
            write(project, "agents.yaml", str(number))
            await moments.next()
            await moments.count(0.15)
            write(project, "agents.yaml", "again")
            await moments.next()


async def test_a_project_behind_a_link_is_followed_when_the_link_moves(project: Path, tmp_path: Path) -> None:
    write(tmp_path, "second/agents.yaml")
    (tmp_path / "current").symlink_to("project")
    async with watching(tmp_path / "current") as moments:
        (tmp_path / "next").symlink_to("second")
        (tmp_path / "next").rename(tmp_path / "current")
        await moments.next()
        write(tmp_path, "second/agents.yaml", "changed")
        await moments.next()


async def test_a_project_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    async with watching(tmp_path / "later") as moments:
        assert await moments.count(0.1) == 0
        write(tmp_path, "later/agents.yaml")
        await moments.next()


# --- start and stop


async def test_without_inotify_the_folder_is_polled(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr(posts, "Observer", refused)
    monkeypatch.setattr(posts, "FALLBACK_POLL_S", 0.03)
    async with watching(project) as moments:
        assert moments.watcher.mode == "polling"
        write(project, "prompts/support.md", "changed")
        await moments.next()


async def test_close_ends_the_moments_and_may_be_repeated(project: Path) -> None:
    async with FolderWatcher(project, quiet_s=60) as watcher:
        moments = watcher.moments()
        waiting = asyncio.ensure_future(anext(moments))
        write(project, "agents.yaml", "changed")
        await asyncio.gather(watcher.close(), watcher.close())
        with pytest.raises(StopAsyncIteration):
            async with asyncio.timeout(DEADLINE_S):
                await waiting
    await watcher.close()


async def test_many_watchers_leave_no_files_open(project: Path) -> None:
    async with watching(project):
        pass
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        async with watching(project):
            pass
    assert len(os.listdir("/proc/self/fd")) == before
