"""Which worker of xdist runs what: the quick tests of a file stay together, the slow ones go one by one, the longest first.

A file's tests share what is made once a module, and ten thousand tests sent one by one cost the process that sends them half a minute.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadGroupScheduling  # type: ignore[import-untyped]


class FilesOrSlowTests(LoadGroupScheduling):  # type: ignore[misc]  # it has no types
    """As `--dist loadgroup`: tests of one `xdist_group` stay together, whatever their file."""

    def _split_scope(self, nodeid: str) -> str:
        scope: str = super()._split_scope(nodeid)
        return scope.partition("::")[0] if self.config.option.markexpr != "slow" else scope


def longest_first(items: list[Any]) -> None:
    """The tests that ask for more time than all others have would otherwise begin last, and one worker would wait for them."""
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)


def scheduler(config: pytest.Config, log: Any) -> FilesOrSlowTests | None:
    """None leaves it to xdist."""
    return FilesOrSlowTests(config, log) if config.getvalue("dist") == "loadgroup" else None
