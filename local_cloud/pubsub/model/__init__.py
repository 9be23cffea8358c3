"""Topics, subscriptions and snapshots with their settings, safe to use from any thread; it knows no transport."""
