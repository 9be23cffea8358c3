"""The JSON API of Cloud Storage over HTTP."""
