"""Pub/Sub over gRPC: topics, subscriptions and leases in memory behind the real wire protocol."""
