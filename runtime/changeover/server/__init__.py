"""HTTP: administration, and the LangGraph server's protocol over a `GraphVersionManager`."""
