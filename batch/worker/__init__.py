"""One worker: three stages that hand over lists (puller, executors, committer), and what keeps their promises."""

from batch.worker.life import Worker

__all__ = ["Worker"]
