"""What two versions of a graph have in common: contracts, steps of migration, and what a thread waits for. Pure."""
