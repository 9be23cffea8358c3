"""The simulated world: queues, workers, a gauge, and the controller's seams onto it."""
