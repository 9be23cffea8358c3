"""A worker: three stages, puller, slots and committer, that hand over lists, and what keeps their promises."""

from batch.worker.life import Worker

__all__ = ["Worker"]
