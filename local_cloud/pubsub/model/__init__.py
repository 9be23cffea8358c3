"""Topics, subscriptions and snapshots with their settings: what every transport speaks to."""
