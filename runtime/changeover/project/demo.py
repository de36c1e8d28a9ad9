"""The parameters of `demo:rules`, for the check that reads them and the model that follows them."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m)?\s*")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0}


class DemoRule(BaseModel):
    """The first rule whose `when` is found in the last message of a person calls the tool `call`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    when: str
    call: str

    @field_validator("when")
    @classmethod
    def _is_regex(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except (re.error, OverflowError) as error:
            raise ValueError(f"it is not a regular expression: {error}") from None
        except RecursionError:
            raise ValueError("it is a regular expression that is nested too deeply") from None
        return pattern


def latency_s(value: Any) -> float:
    """Seconds as a number, or text such as `2s` or `200ms`."""
    found = _DURATION.fullmatch(str(value))
    if isinstance(value, bool) or found is None:
        raise ValueError(f"latency is seconds or text such as '2s' or '200ms', not {value!r}")
    return float(found[1]) * _UNIT_S[found[2] or "s"]
