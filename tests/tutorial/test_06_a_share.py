"""A share is how many messages one worker may take. Cloud Run tells each worker its index; no two have to talk to each other."""

from __future__ import annotations

from batch.model.shares import share, share_left


def test_shares_sum_to_the_backlog() -> None:
    shares = [share(backlog=1000, workers=3, index=index) for index in range(3)]
    assert shares == [334, 333, 333]
    assert sum(shares) == 1000
    assert share_left(own_share=334, acked_before=300) == 34  # of a worker that was killed, Cloud Run's retry takes what is left
