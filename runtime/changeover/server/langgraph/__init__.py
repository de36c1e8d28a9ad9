"""The LangGraph server's protocol, as its own clients speak it."""
