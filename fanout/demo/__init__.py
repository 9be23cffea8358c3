"""`fanout demo`: the main job end to end on a local cloud, on real files. Ends with 0 only when every task is proven.

Whatever happens, nothing that it started is left running.
"""

from __future__ import annotations

from fanout.demo.program import command

__all__ = ["command"]
