"""What runs use, seen from the callbacks of their models and tools: counts, spans, and reports of both."""
