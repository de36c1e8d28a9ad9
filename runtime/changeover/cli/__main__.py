"""`python -m changeover.cli`, for where the console script is not on the path."""

from __future__ import annotations

from changeover.cli import main

main()
