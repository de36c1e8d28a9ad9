"""Hooks of the service, for people who embed it: what they subclass, and what it is given.

```python
class OnlyInOfficeHours(ServiceHooks):
    async def before_switch(self, switching):
        return None if 9 <= datetime.now().hour < 17 else "nobody is here to watch it"

GraphVersionManager.open("path/to/project", hooks=[OnlyInOfficeHours()])
```
Who calls them, with which deadline, and what becomes of one that fails: `changeover.rollout.hooking`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from changeover.errors import ProjectError
    from changeover.manager import GraphVersionManager
    from changeover.rollout.receipt import Receipt

Action = Literal["switch", "ramp", "rollback"]


@dataclass(frozen=True)
class Switching:
    """A change of what serves. `from_` is what serves as it is asked for, None before the first version.

    `graphs` are those that alone are switched; none: all. `percent` is the share that a ramp gives the version.
    `actor` is `watcher` for a save and `server` for the first start.
    """

    action: Action
    to: str
    from_: str | None
    graphs: tuple[str, ...] = ()
    percent: float | None = None
    reason: str = ""
    actor: str = ""


class ServiceHooks:
    """Override what you need. Each call has `timeout_s`, and must leave the event loop free while it waits.

    Several hooks are called one after the other, in the order they were given. None of them may move the routing.
    """

    timeout_s: float = 10.0

    async def before_start(self, manager: GraphVersionManager) -> None:
        """Nothing is open yet. If it raises, the start fails with that as its reason."""

    async def after_start(self, manager: GraphVersionManager) -> None:
        """The manager is open: graphs made in code may be registered now. Nothing is built or served yet."""

    async def before_switch(self, switching: Switching) -> str | None:
        """Before a switch or a ramp, also of a save. A reason vetoes it, and so does raising or taking too long.

        Not before a rollback, nor where a ramp is ended: nothing may stand in the way of those.
        """
        return None

    async def after_switch(self, switching: Switching, receipt: Receipt) -> None:
        """The routing has moved, rollbacks included. Called in the order of the moves made in this process."""

    async def on_failed_build(self, error: ProjectError) -> None:
        """A build failed; `error.problems` says why, `error.version` is the rejected version.

        Once for the same bytes with the same problems, however often they are tried.
        """
