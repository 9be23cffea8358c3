"""Cloud Monitoring's `ListTimeSeries` for the two gauges of a Pub/Sub subscription's backlog."""
