"""Shares always sum to what was assigned."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.model.shares import share, share_left


@given(st.integers(0, 10**9), st.integers(1, 300))
def test_shares_sum_to_the_backlog_and_differ_by_one_at_most(backlog: int, workers: int) -> None:
    shares = [share(backlog, workers, index) for index in range(workers)]
    assert sum(shares) == backlog
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(("backlog", "workers", "index"), [(-1, 1, 0), (1, 0, 0), (1, 2, 2), (1, 2, -1)])
def test_a_share_of_nobody_is_an_error(backlog: int, workers: int, index: int) -> None:
    with pytest.raises(ValueError, match="no share for index"):
        share(backlog, workers, index)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_retry_takes_what_is_left_and_never_less_than_nothing(own_share: int, acked_before: int) -> None:
    left = share_left(own_share, acked_before)
    assert left >= 0
    assert left == own_share - acked_before or (left == 0 and acked_before > own_share)
