"""`/ui`: a page to see and steer what is served.

A client of the administration and run API, which it calls in process: it does nothing that they do not do.
"""
