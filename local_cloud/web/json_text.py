"""Reads JSON of clients so strictly that whatever is kept of it can be written again.

Python's own reader accepts numbers that JSON does not have (NaN, 1e999) and halves of characters (`"\\ud800"`). An answer that holds one of
them cannot be sent, so one bad request would break every later list.
"""

from __future__ import annotations

import json
from typing import Any


def strict_json(body: bytes) -> Any:
    """The value. Raises ValueError, with what is wrong."""
    try:
        value = json.loads(body)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds half of a character (a lone surrogate)") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value
