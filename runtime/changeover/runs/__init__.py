"""Using a version: which one a run is bound to, running it, knowing what is in flight."""
