"""`/admin`: what is served, by which version, and how that changes."""
