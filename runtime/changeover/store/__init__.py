"""What survives a crash: versions, routing, threads, runs, holds, operations and events as rows."""
