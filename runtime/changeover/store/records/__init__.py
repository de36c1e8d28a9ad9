"""The rows of the store as frozen values, a file for each noun.

Times are Unix seconds (float). Ids of versions are text: `v7`, or the name of a registered one.
`to_json` gives the shape that the HTTP API, the command line and the library share.
"""
