"""Keys of the state, compared: gone, new, of another type, gathered in another way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from changeover.contracts.comparison import Comparison
from changeover.contracts.differences import Difference
from changeover.contracts.flat import Json, above, below, leaf
from changeover.contracts.likeness import most_alike
from changeover.contracts.types import unchecked
from changeover.contracts.widening import told

KEEPING = ("LastValue", "LastValueAfterFinish", "AnyValue", "BinaryOperatorAggregate", "DeltaChannel")
GATHERING = ("BinaryOperatorAggregate", "DeltaChannel", "Topic")
FORGETTING = ("EphemeralValue", "UntrackedValue")
BUILTINS = {"str": "", "int": 0, "float": 0.0, "bool": False, "list": [], "dict": {}, "tuple": None, "set": None}


def keys_differ(comparison: Comparison) -> Iterator[Difference]:
    for path, channel in comparison.old.channels.items():
        if comparison.has_level(above(path)):
            yield from _key(comparison, path, channel)
    for path in sorted(comparison.new_keys):
        yield from _added(comparison, path)
    for level, old in comparison.old.levels.items():
        new = comparison.new.levels.get(comparison.level(level) or "", {}) if comparison.has_level(level) else {}
        if new and (old.get("state") or {}) != (new.get("state") or {}):
            reason = f"the state of {_graph(level)} is declared in another way; it is checked when a thread moves"
            yield Difference("state-declared", level, "safe", reason)


def _key(comparison: Comparison, path: str, channel: Json) -> Iterator[Difference]:
    touches = comparison.touches_state_of(above(path))
    target = comparison.names.key(path)
    if target is None:
        yield Difference("key-dropped", path, "migrates", f"key '{path}' is dropped by a step", touches=touches)
    elif target in comparison.new.channels:
        if target != comparison.stays_at(path):
            yield Difference("key-renamed", path, "migrates", f"key '{path}' is '{target}' now", touches=touches)
        yield from _retyped(comparison, path, target)
        yield from _regathered(comparison, path, target)
    elif target != comparison.stays_at(path):
        reason = f"a step makes key '{path}' into '{target}', which the graph does not have"
        yield Difference("key-missing", path, "breaks", reason, "correct the step", touches=touches)
    else:
        yield _removed(comparison, path, target)


def _removed(comparison: Comparison, path: str, target: str) -> Difference:
    touches = comparison.touches_state_of(above(path))
    if above(target) in comparison.names.code_of or target in comparison.names.set:
        return Difference("key-removed", path, "migrates", f"key '{path}' is dealt with by a step", touches=touches)
    became = _likely(comparison, path, target)
    if became is None:
        return Difference("key-removed", path, "safe", f"key '{path}' is gone; its value is no longer used")
    reason = f"key '{path}' is gone and '{became}' is new: if it was renamed, its value would be lost"
    hint = f"write a step: state.rename {{{path}: {leaf(became)}}}, or state.drop [{path}] if its value is not needed"
    suggestion = {"state": {"rename": {path: leaf(became)}}}
    return Difference("key-removed", path, "breaks", reason, hint, suggestion, touches)


def _likely(comparison: Comparison, path: str, target: str) -> str | None:
    """The new key of the same graph that an old one may have become."""
    handled = comparison.names.set | comparison.restored
    free = {
        leaf(each): comparison.new.channels[each]
        for each in comparison.new_keys
        if above(each) == above(target) and each not in handled
    }
    old = comparison.old.channels[path]
    fitting = [name for name, new in free.items() if _is_alike(comparison, old, new)]
    found = most_alike(leaf(path), free, fitting=fitting)
    return below(above(target), found) if found is not None else None


def _is_alike(comparison: Comparison, old: Json, new: Json) -> bool:
    same_reducer = _reducer(old) == _reducer(new)
    return same_reducer and comparison.widening.fits(old.get("type"), new.get("type"), new.get("schema"))


def _added(comparison: Comparison, path: str) -> Iterator[Difference]:
    level = above(path)
    before = next((old for old in comparison.old.levels if comparison.level(old) == level), None)
    if before is None:
        return  # a new graph begins with an empty state
    required = (comparison.new.levels[level].get("state") or {}).get("required") or []
    handled = path in comparison.names.set | comparison.names.converted | comparison.restored
    if leaf(path) not in required:
        reason = f"key '{path}' is new; it is empty until something is written to it"
        yield Difference("key-added", path, "safe", reason, rewrites=False)
    elif handled or level in comparison.names.code_of:
        yield Difference("key-added", path, "migrates", f"key '{path}' is new and given a value by a step")
    else:
        reason = f"key '{path}' is new and must have a value; saved threads have none"
        hint = f"write a step: state.set {{{path}: <value>}}, or give the key a default"
        suggestion = {"state": {"set": {path: _default(comparison.new.channels[path].get("type"))}}}
        touches = comparison.touches_state_of(before)
        yield Difference("key-added", path, "breaks", reason, hint, suggestion, touches)


def _retyped(comparison: Comparison, path: str, target: str) -> Iterator[Difference]:
    old, new = comparison.old.channels[path], comparison.new.channels[target]
    if old.get("type") == new.get("type"):
        return
    change = f"key '{path}' was {told(old.get('type'))} and is {told(new.get('type'))} now"
    if told(old.get("type")) == told(new.get("type")):
        change = f"{told(new.get('type'))} in key '{path}' has other fields, or another place"
    touches = comparison.touches_state_of(above(path))
    if unchecked(old.get("type")) == unchecked(new.get("type")):
        reason = (
            f"{told(new.get('type'))} in key '{path}' checks its values in another way; saved ones are checked anew"
        )
        yield Difference("key-checked", path, "safe", reason)
    elif comparison.is_touched(target):
        yield Difference("key-retyped", path, "migrates", f"{change}; a step converts it", touches=touches)
    elif comparison.widening.fits(old.get("type"), new.get("type"), new.get("schema")):
        yield Difference("key-retyped", path, "safe", f"{change}; what was saved fits")
    else:
        builtin = _builtin(new.get("type"))
        hint = f"write a step: state.convert {{{target}: {builtin or 'module:function'}}}"
        suggestion: dict[str, Any] | None = {"state": {"convert": {target: builtin}}} if builtin else None
        moved = _moved_class(old.get("type"), new.get("type"))
        if moved is not None:
            hint = f"write a step: types.rename {{{moved[0]}: {moved[1]}}}"
            suggestion = {"types": {"rename": {moved[0]: moved[1]}}}
        yield Difference(
            "key-retyped", path, "breaks", f"{change}; what was saved does not fit", hint, suggestion, touches
        )


def _regathered(comparison: Comparison, path: str, target: str) -> Iterator[Difference]:
    """The channel itself: how what is written to a key is put together."""
    old, new = comparison.old.channels[path], comparison.new.channels[target]
    if (old.get("channel"), _reducer(old)) == (new.get("channel"), _reducer(new)):
        if old.get("reducer") != new.get("reducer"):
            reason = f"the reducer of key '{path}' has other code; it puts together what is written from now on"
            yield Difference("reducer-changed", path, "safe", reason, rewrites=False)
        return
    loss = _loss(old, new)
    if loss is None:
        reason = f"what is written to key '{path}' is put together by {_gathered(new)} from now on"
        yield Difference("reducer-changed", path, "safe", reason)
    elif comparison.is_touched(target):
        yield Difference("reducer-changed", path, "migrates", f"key '{path}': a step takes care of its value")
    else:
        builtin = _builtin(new.get("type"))
        hint = (
            f"write a step that says what its value becomes: state.convert {{{target}: {builtin or 'module:function'}}}"
        )
        suggestion = {"state": {"convert": {target: builtin}}} if builtin else None
        touches = comparison.touches_state_of(above(path))
        yield Difference("reducer-changed", path, "breaks", f"key '{path}' {loss}", hint, suggestion, touches)


def _loss(old: Json, new: Json) -> str | None:
    """What is lost with the way in which a key is gathered; None: nothing."""
    before, after = str(old.get("channel")), str(new.get("channel"))
    if after in FORGETTING and before not in FORGETTING:
        return "is no longer kept: its value is lost after the next step"
    if before in FORGETTING:
        return None
    if before in GATHERING and after not in GATHERING:
        return f"was gathered by {_gathered(old)} and keeps the last value alone now: the next write loses its history"
    if before in KEEPING and after in KEEPING:
        return None
    return f"is held in another way ({before}, now {after}): what was saved cannot be read"


def _gathered(channel: Json) -> str:
    return f"'{_reducer(channel)}'" if channel.get("reducer") else str(channel.get("channel"))


def _reducer(channel: Json) -> str | None:
    """Its name, without the digest of its code."""
    reducer = channel.get("reducer")
    return str(reducer).partition("#")[0] if reducer is not None else None


def _builtin(description: Any) -> str | None:
    name = description if isinstance(description, str) else str((description or {}).get("of", ""))
    short = name.removeprefix("builtins.")
    return short if name.startswith("builtins.") and short in BUILTINS else None


def _default(description: Any) -> Any:
    return BUILTINS.get(_builtin(description) or "")


def _moved_class(old: Any, new: Any) -> tuple[str, str] | None:
    """A class of the same name that lies elsewhere now, as `module:Class`."""
    for mine, theirs in zip(_classes(old), _classes(new), strict=False):
        if mine != theirs and leaf(mine.replace(".", "/")) == leaf(theirs.replace(".", "/")):
            return ":".join(mine.rsplit(".", 1)), ":".join(theirs.rsplit(".", 1))
    return None


def _classes(description: Any) -> list[str]:
    if not isinstance(description, dict):
        return []
    own = [str(description["class"])] if "class" in description else []
    return own + [name for each in description.get("args", ()) for name in _classes(each)]


def _graph(level: str) -> str:
    return f"'{level}'" if level else "the graph"
