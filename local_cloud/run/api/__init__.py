"""Both versions of the Cloud Run Admin API over HTTP."""
