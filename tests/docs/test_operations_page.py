"""What the guide says in numbers and names is what the code and the deployment's files have."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from batch import prices

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
COSTS = PAGE[PAGE.index("## What it costs") : PAGE.index("## Limits")]


def rows(section: str) -> list[list[str]]:
    """The cells of the table in it, without its head."""
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines() if line.startswith("| ")][2:]


def worth(arithmetic: str) -> float:
    text = arithmetic.strip("`").replace("×", "*").replace("$", "").replace("^", "**").replace(" s", "")
    assert re.fullmatch(r"[0-9.*/+() ]+", text), text
    return float(eval(text))


def test_the_costs_are_what_their_arithmetic_gives() -> None:
    told = rows(COSTS)
    assert len(told) == 7
    for what, arithmetic, usd in told:
        digits = len(usd.partition(".")[2])
        assert usd == f"${worth(arithmetic):.{digits}f}", what


def test_the_prices_are_those_that_decisions_are_made_with() -> None:
    worker = prices.worker_usd_per_s(1, 1)
    for told in (
        prices.DATE,
        f"${prices.VCPU_SECOND_USD:f} for a vCPU second",
        f"${prices.GIB_SECOND_USD:f} for a GiB second",
        f"billed for {prices.WORKER_FLOOR_S:g} s",
        f"${prices.WRITE_USD * 1000:g} for 1,000 writes",
        f"${prices.MESSAGE_BYTE_USD * 2**40:g} for each TiB",
        f"${worker:.5f} a second",
    ):
        assert told in " ".join(COSTS.split()), told
    used = set(re.findall(r"\$[0-9.]+", "".join(row[1] for row in rows(COSTS))))
    small = f"${prices.worker_usd_per_s(1, 0.5):.6f}"
    assert used == {f"${worker:.5f}", small, f"${prices.WRITE_USD * 1000:g}", f"${prices.MESSAGE_BYTE_USD * 2**40:g}"}


def test_the_rules_of_the_bucket_are_those_of_the_file() -> None:
    section = PAGE[PAGE.index("## The bucket's rules") : PAGE.index("## Monitoring")]
    told = {row[0].strip("`"): int(row[1].removesuffix(" days")) for row in rows(section)}
    rules = json.loads((ROOT / "deploy" / "lifecycle.json").read_text(encoding="utf-8"))["rule"]
    assert told == {prefix: one["condition"]["age"] for one in rules for prefix in one["condition"]["matchesPrefix"]}


def test_accounts_parameters_and_settings_are_those_that_are_there() -> None:
    with (ROOT / "deploy" / "identity" / "bindings.csv").open(encoding="utf-8") as file:
        accounts = {f"fanout-{row['account']}" for row in csv.DictReader(file) if row["account"] != "pubsub-agent"}
    section = PAGE[PAGE.index("## Identity") : PAGE.index("### In without keys")]
    assert set(re.findall(r"`([a-z-]+)`", " ".join(row[0] for row in rows(section)))) == accounts | {"fanout-submitter"}
    text = "\n".join((ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in ("operations", "services", "lanes"))
    parameters = set(re.findall(r"^([A-Z_]+)=", (ROOT / "deploy" / "parameters.example.env").read_text(encoding="utf-8"), re.MULTILINE))
    settings = set(re.findall(r"^\| `([A-Z_]+)`", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE))
    others = {"GOOGLE_APPLICATION_CREDENTIALS", "PUBSUB_EMULATOR_HOST"}
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)`", text)) - settings - parameters - others == set()
