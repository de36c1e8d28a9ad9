"""The store, under the name it had when it knew SQLite alone."""

from changeover.store.opening import Store, lock_file

__all__ = ["Store", "lock_file"]
