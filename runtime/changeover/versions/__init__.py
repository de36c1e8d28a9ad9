"""What never changes: the bytes of a version, its digests, its contracts, its legal moves."""
