"""One worker: three stages that hand over lists (puller, executors, committer), and what keeps their promises."""
