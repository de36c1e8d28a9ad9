"""Saved threads, moved from one version of a graph to another: read, rewritten, checked and landed."""
