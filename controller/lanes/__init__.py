"""Lanes: their annotations, the manifests of their jobs, and what is deployed."""
