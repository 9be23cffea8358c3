"""Pub/Sub behind the real wire protocols: `messages` and `model` are its state, `rpc` and `rest` serve it, `store` keeps it on disk."""
