"""Simulation: the real tick under simulated time, with arrivals, rivals and a bound to compare it with. Nothing in the product but the
command `fanout` imports it."""
