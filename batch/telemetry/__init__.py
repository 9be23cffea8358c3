"""Traces and metrics by OpenTelemetry, off without TELEMETRY. What a hot path calls is then None, and no library of theirs is imported."""
