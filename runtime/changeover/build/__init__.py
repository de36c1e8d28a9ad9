"""From a checked version to things that run: models, tools, agents and graphs as LangGraph objects."""
