"""Where in a project folder the system is asked to report changes, and looking there where it cannot.

Owns the watchdog observer and the set of folders it watches; `renew` makes that set fit the folder as
it is now. Every method but `is_stale` may block, and all are called from one thread. Watchdog calls
`notice` from its own threads.

The project's own folder is watched alone, without its subfolders; a subfolder with all that is below it
if all of that belongs to the version, else alone as well. So a .venv or node_modules costs nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog
from watchdog import events
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

from changeover.errors import OperatorError
from changeover.versions import layout
from changeover.versions.tree import SnapshotLimits, Stamp, Tree
from changeover.versions.walk import scan

FALLBACK_POLL_S = 1.0

_WRITES: list[type[events.FileSystemEvent]] = [
    events.FileCreatedEvent,
    events.FileModifiedEvent,
    events.FileAttribEvent,
    events.FileClosedEvent,
    events.FileDeletedEvent,
    events.FileMovedEvent,
    events.DirCreatedEvent,
    events.DirDeletedEvent,
    events.DirMovedEvent,
]
_APPEARANCES = (events.EVENT_TYPE_CREATED, events.EVENT_TYPE_MOVED)
_NO_ROOM = frozenset({errno.ENOSPC, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSYS, errno.EPERM})
_STEERING_FILES = frozenset({*layout.SERVER_FILES, layout.LANGGRAPH_FILE})

Notice = Callable[[bool], None]
"""Called when something changed; with True if the watched folders may have to be others now."""

log = structlog.get_logger(__name__)


class Post(NamedTuple):
    path: str
    with_subfolders: bool
    identity: tuple[int, int]


class _NoRoom(Exception):
    """The system gives no (more) watches; the message says why."""


class Posts:
    """`poll_s` is None while the system reports changes, else the interval at which `poll` wants to be called."""

    def __init__(self, folder: Path, limits: SnapshotLimits, poll_s: float | None, notice: Notice) -> None:
        self.poll_s = poll_s
        self._folder = folder
        self._limits = limits
        self._notice = notice
        self._tree: Tree | None = None
        self._observer: BaseObserver | None = None
        self._watches: dict[Post, ObservedWatch] = {}
        self._lost: deque[str] = deque()  # watched folders that were deleted: their watches are dead
        self._seen: object = None

    def renew(self) -> bool:
        """Make the watches fit the folder; True if they had to change."""
        self._tree = self._scan()
        if self.poll_s is None:
            try:
                return self._arrange(_wanted(self._tree))
            except _NoRoom as reason:
                log.warning("watch_falls_back_to_polling", folder=str(self._folder), reason=str(reason))
                self.close()
                self.poll_s = FALLBACK_POLL_S
        self._seen = self._state(self._tree)
        return True

    def poll(self) -> bool:
        """Look at the folder; True if it is not as it was at the last look."""
        self._tree = self._scan()
        state = self._state(self._tree)
        before, self._seen = self._seen, state
        if self._tree is not None and not self._tree.is_settled(time.time_ns()):
            self._seen = None  # a file this new may change again and keep its stamp: look once more
        return state != before

    def is_stale(self) -> bool:
        """Has a watched folder been replaced, or has the project's come or gone?"""
        if self._tree is None:
            return self._folder.is_dir()
        if os.path.realpath(self._folder) != self._tree.root:
            return True
        return any(_identity(post.path) != post.identity for post in self._watches)

    def close(self) -> None:
        observer, self._observer = self._observer, None
        self._watches.clear()
        if observer is not None:
            _stop(observer)

    def _scan(self) -> Tree | None:
        try:
            return scan(self._folder, self._limits)
        except OperatorError:
            return None

    def _state(self, tree: Tree | None) -> object:
        """All that a look compares: what belongs to a version, and the values for it."""
        if tree is None:
            return "missing"
        stamps = [(name, _stamp(os.path.join(tree.root, name))) for name in _environment(tree.root)]
        return (tree.root, tree.files, tree.steering, tree.unread, stamps)

    # --- watches

    def _arrange(self, wanted: set[Post]) -> bool:
        lost: set[str] = set()
        while self._lost:
            lost.add(self._lost.popleft())
        gone = [post for post in self._watches if post not in wanted or post.path in lost]
        for post in gone:
            watch = self._watches.pop(post)
            if self._observer is not None:
                with contextlib.suppress(KeyError, OSError):
                    self._observer.unschedule(watch)
        new = sorted(wanted - self._watches.keys())
        for post in new:
            self._add(post)
        if new and not self._has_room():
            raise _NoRoom("the limit of inotify watches is reached (fs.inotify.max_user_watches)")
        return bool(gone or new)

    def _add(self, post: Post) -> None:
        try:
            if self._observer is None:
                self._observer = _start()
            self._watches[post] = self._observer.schedule(
                _Handler(self._on_event), post.path, recursive=post.with_subfolders, event_filter=_WRITES
            )
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise _NoRoom(str(error)) from error
            # gone again, which the folder above has noticed or `is_stale` will

    def _has_room(self) -> bool:
        """Watchdog is silent about subfolders it could not watch; where one more watch can be had, all could."""
        try:
            probe = _start()
        except OSError:
            return True  # no second instance says nothing about the watches of the first
        try:
            probe.schedule(_Handler(lambda event: None), str(self._folder), event_filter=_WRITES)
        except OSError as error:
            return error.errno != errno.ENOSPC
        finally:
            _stop(probe)
        return True

    # --- events, in watchdog's thread

    def _on_event(self, event: events.FileSystemEvent) -> None:
        tree = self._tree
        if tree is None:
            return
        paths = [os.fsdecode(path) for path in (event.src_path, event.dest_path) if path]
        if event.is_directory and event.event_type == events.EVENT_TYPE_DELETED:
            self._lost.extend(post.path for post in list(self._watches) if post.path in paths)
        places = [place for path in paths if (place := _place(tree.root, path)) is not None]
        if any(place == "" or tree.concerns(place) for place in places):
            self._notice(event.is_directory or any(_may_move_posts(event, path) for path in paths))


def _may_move_posts(event: events.FileSystemEvent, path: str) -> bool:
    name = os.path.basename(path)
    if name in _STEERING_FILES or layout.is_steering(name):
        return True
    return event.event_type in _APPEARANCES and os.path.islink(path)


class _Handler(events.FileSystemEventHandler):
    def __init__(self, on_event: Callable[[events.FileSystemEvent], None]) -> None:
        self._on_event = on_event

    def on_any_event(self, event: events.FileSystemEvent) -> None:
        self._on_event(event)


def _wanted(tree: Tree | None) -> set[Post]:
    if tree is None:
        return set()
    posts: set[Post] = set()
    covered: tuple[str, ...] = ()
    for place in sorted(tree.folders, key=lambda place: place.split("/") if place else []):
        if covered and f"{place}/".startswith(covered):
            continue
        path = os.path.join(tree.root, place) if place else tree.root
        identity = _identity(path)
        whole = bool(place) and not any(f"{flat}/".startswith(f"{place}/") for flat in tree.flat)
        if identity is not None:
            posts.add(Post(path, whole, identity))
        covered = (*covered, f"{place}/") if whole else covered
    return posts


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)


def _environment(root: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(root) if layout.is_environment(name))
    except OSError:
        return []


def _stamp(path: str) -> Stamp | None:
    try:
        return Stamp.of(os.stat(path))
    except OSError:
        return None


def _place(root: str, path: str) -> str | None:
    if path == root:
        return ""
    above = root.rstrip("/") + "/"
    return path[len(above) :] if path.startswith(above) else None


def _start() -> BaseObserver:
    observer = Observer()
    try:
        observer.start()
    except BaseException:
        observer.stop()
        raise
    return observer


def _stop(observer: BaseObserver) -> None:
    observer.stop()
    if observer.is_alive():
        observer.join()
