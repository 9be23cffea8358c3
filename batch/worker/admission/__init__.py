"""From a delivery to an attempt: what decides whether a message runs now, and what stands in the bucket about those delivered before."""
