"""Moving traffic: switches, rollbacks and drains as operations, and the watcher that makes them of saves."""
