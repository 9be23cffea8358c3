"""Cloud Run Jobs on loopback: both versions of the API on one port, with real processes as workers.

The image of a container is ignored: its command and arguments run in the folder that the server was started in.
"""
