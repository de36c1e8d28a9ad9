"""The thread-centric streaming protocol: commands to a thread, and the events of whatever runs on it.

`events` turns a run's stream into events, `threads` keeps and numbers those of a thread, `hub` follows all runs,
`elsewhere` notices those of other processes, `subscriptions` says which events a client wants, `commands` does what
clients ask; `http` and `websocket` are the two ways in.
"""
