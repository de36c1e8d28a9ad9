"""What versions share: model clients and other things that are opened once and used by many."""
