"""Decisions: pure functions of values, from a reading and a ledger to a number of workers and the reasons."""
