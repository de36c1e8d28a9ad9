"""LangServe's routes, for its `RemoteRunnable` in Python and in JavaScript."""
