"""LangGraph's state: its tables in our database, and values that name classes as the project does."""
