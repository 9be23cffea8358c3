"""`fanout` and `python -m fanout`: the command, or one line that says what has to be installed for it."""

from __future__ import annotations

from batch.extras import needs_extra
from batch.services.calls import role


def main() -> None:
    role.name = "cli"
    with needs_extra("fanout", "local"):
        from fanout.commands import main as fanout

        fanout()


if __name__ == "__main__":
    main()
