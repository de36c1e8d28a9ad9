"""Measurements of what the server promises, each beside the plain thing in the same run. `python -m bench`."""
