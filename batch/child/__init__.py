"""The child process that runs isolated handlers, and what travels between it and its worker.

A child has no Google client and loads neither grpc nor google: what its handler reads and writes is done by the worker.
"""
