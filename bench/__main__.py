"""`python -m bench [--quick] [NAME ...]`: run measurements one after the other, print a table, write JSON.

`python -m bench soak [--minutes M] ...` is one of its own (`--help`).
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import logging
import sys

from bench.table import Row, show, write

NAMES = (
    "invoke",
    "wait",
    "streams",
    "edit",
    "switches",
    "rollout",
    "recovery",
    "holders",
    "migrations",
    "resources",
    "page",
    "memory",
    "followers",
)
SOAK = "soak"  # has options of its own, and is run by name alone


def main() -> int:
    if sys.argv[1:2] == [SOAK]:
        return _soak(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}; all without")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: shows that it works, not how fast it is")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - set(NAMES))
    if unknown:
        parser.error(f"there is no measurement {', '.join(unknown)}; there are {', '.join(NAMES)}")
    logging.basicConfig(level=logging.WARNING)
    measurements: dict[str, list[Row]] = {}
    for name in given.names or NAMES:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        measurements[name] = asyncio.run(importlib.import_module(f"bench.{name}").measure(given.quick))
    show(measurements)
    print(f"written to {write(measurements, given.quick)}")
    return _status(measurements)


def _soak(arguments: list[str]) -> int:
    soak = importlib.import_module("bench.soak")
    wanted = soak.options(arguments)
    measurements = {SOAK: asyncio.run(soak.measure(False, wanted))}
    show(measurements)
    print(f"written to {write(measurements, False)}")
    return _status(measurements)


def _status(measurements: dict[str, list[Row]]) -> int:
    return 0 if all(row.met is not False for rows in measurements.values() for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
