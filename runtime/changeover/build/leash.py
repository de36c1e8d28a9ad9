"""A command that does not outlive who started it: `python leash.py COMMAND ...`, with a pipe as its standard input.

When the other end of the pipe closes, in whatever way its process died, the command is killed with everything that it
started. A program of its own, of the standard library alone; who runs it makes it the leader of a session.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> int:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_watch, args=(process,), daemon=True).start()
    return process.wait()


def _watch(process: subprocess.Popen[bytes]) -> None:
    while os.read(0, 4096):
        continue
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)  # this process too
    else:
        process.kill()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
