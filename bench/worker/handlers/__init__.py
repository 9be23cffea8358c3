"""Handlers that do nothing, or only wait: what is measured is everything around them.

One to a module, named like its task type: a worker whose handlers are all of one kind need not look into a message to sort it.
"""

from __future__ import annotations

WAIT_S = 0.02
GROUP = 500


def module_of(task_type: str) -> str:
    """What the setting HANDLERS says for it."""
    return f"{__name__}.{task_type}"
