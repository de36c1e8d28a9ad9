"""What a person reads when requirements cannot be had: at the line that asks, with what to do."""

from __future__ import annotations

import re

from packaging.utils import canonicalize_name

from changeover.build.installing import Order, Place
from changeover.project import installed
from changeover.project.installed import parsed
from changeover.project.problems import Problem
from changeover.project.requirements import Wanted

ALONE = "serve it from a process of its own, or stop the server, `changeover build`, `changeover switch`, and start it"
_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def not_installed(order: Order, reason: str) -> Problem:
    named = set(_NAME.findall(reason.lower()))
    at = next((wanted for wanted in order.wanted if wanted.name in named), order.wanted[0])
    own = [f"{package.name} {package.version}" for package in order.own.values() if package.name in named]
    has = f" (the server has {', '.join(own[:5])}, which stays)" if own else ""
    hint = "correct the requirements, or see that the index can be reached, and build again"
    return at.problem("requirement-install", f"the requirements cannot be installed: {reason}{has}", hint)


def conflict(order: Order, place: Place, package: str, said: str, remedy: str) -> Problem:
    at = _asker(order, place, package)
    message = f"'{at.text}' {said}: a process has one release of a package"
    return at.problem("requirement-conflict", message, f"{remedy}, or {ALONE}")


def _asker(order: Order, place: Place, package: str) -> Wanted:
    """The first requirement of the project that leads to a package."""
    there = installed.packages_in([str(place.folder)])
    for wanted in order.wanted:
        reached: set[str] = {wanted.name}
        waiting: list[str] = [wanted.name]
        while waiting:
            known = there.get(waiting.pop())
            new = {canonicalize_name(one.name) for one in parsed(known.requires if known else ())} - reached
            reached |= new
            waiting += new
        if package in reached:
            return wanted
    return order.wanted[0]
