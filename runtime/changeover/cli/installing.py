"""The offer to install what the models of a project need; only to a person, at a terminal, and never without a yes."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from changeover.cli import output
from changeover.errors import ChangeoverError
from changeover.project.providers import Provider, requirement_of


def offer_packages(folder: Path) -> None:
    """Ask for each package that is missing. What is not installed is said again by the build that needs it."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return
    for provider, model in _missing(folder).items():
        output.say(f"model '{model}' needs {provider.package}, which is not installed")
        output.piece(f"run `{provider.command}` now? [y/N] ")
        if sys.stdin.readline().strip().lower() in ("y", "yes"):
            _install(provider)


def _missing(folder: Path) -> dict[Provider, str]:
    from changeover.project.environment import environment_of
    from changeover.project.load import load
    from changeover.project.packages import missing_packages
    from changeover.settings import environment
    from changeover.versions.snapshot import take

    try:
        files = take(folder).files
    except ChangeoverError:
        return {}  # the server says what is wrong with the folder
    return missing_packages(load(files).project, environment_of(folder, environment()))


def _install(provider: Provider) -> None:
    status = subprocess.run([*_installer(), requirement_of(provider.package)], check=False).returncode
    importlib.invalidate_caches()
    if status or not provider.is_installed:
        output.say(f"{provider.package} was not installed; `{provider.command}` shows why")


def _installer() -> list[str]:
    """For this very Python: an environment made by uv has no pip of its own."""
    uv = shutil.which("uv")
    if importlib.util.find_spec("pip") is None and uv:
        return [uv, "pip", "install", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install"]
