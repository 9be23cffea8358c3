"""A small Google Cloud on loopback: Pub/Sub, Cloud Storage, Cloud Run Jobs and Monitoring behind their real wire protocols.

Imports nothing of Fanout's own packages, so that a wrong codec cannot agree with itself.
"""
