"""Read these tests first. Each shows one idea with the real functions; together they are the way of a task through Fanout.

For whoever writes handlers:

1.  `test_01_a_handler.py`       a handler is a function; it runs in memory, without a cloud
2.  `test_02_one_output.py`      a message may be delivered twice; the output is written once
3.  `test_03_what_is_retried.py` an exception is a failed attempt; the next one waits for the backoff
4.  `test_04_what_dies.py`       some tasks can never succeed: they end dead, each with a reason

What happens around the handlers:

5.  `test_05_a_lease.py`         a message that a worker pulled belongs to it until its lease ends, or it acknowledges
6.  `test_06_a_share.py`         each worker of an execution takes an equal part of the backlog, and no more
7.  `test_07_a_decision.py`      from a reading of the backlog to a number of workers; unknown is never zero
8.  `test_08_the_ledger.py`      what workers already have is not assigned a second time
9.  `test_09_the_proof.py`       every task that was submitted has an outcome, or is missing by name
10. `test_10_all_of_it.py`       the same with real processes, on the local cloud

Run them with `.venv/bin/python -m pytest tests/tutorial`. The words are explained in docs/architecture.md.
"""
