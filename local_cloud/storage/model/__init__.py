"""Buckets, objects and uploads: their state and their files. No HTTP."""
