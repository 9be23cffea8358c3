"""What docs/benchmarks.md says of the image is what was recorded."""

from __future__ import annotations

from bench import image
from bench.page import PAGE, RESULTS, block
from bench.recording import read


def test_the_page_is_what_was_recorded() -> None:
    assert block(image.NAME, image.text(read(RESULTS / f"{image.NAME}.json"))) in PAGE.read_text(encoding="utf-8")
