"""The bucket's lifecycle rules delete nothing that Fanout still needs."""

from __future__ import annotations

import json
from pathlib import Path

from batch.model.names import HISTORY, OWN_FOLDERS, claim_object

RULES = json.loads((Path(__file__).resolve().parents[2] / "deploy" / "lifecycle.json").read_text())["rule"]
DAYS = {prefix: rule["condition"]["age"] for rule in RULES for prefix in rule["condition"]["matchesPrefix"]}
KEPT = ("delayed", "dead", "submissions", "cancel", "open", "keys", "slowed")
"""Keys never expire: a key whose record is gone is new again, and its tasks run again."""


def test_every_rule_deletes_below_a_folder_of_ours_by_age_alone() -> None:
    for rule in RULES:
        assert rule["action"] == {"type": "Delete"}
        assert set(rule["condition"]) == {"age", "matchesPrefix"}
    assert all(prefix.endswith("/") and prefix.partition("/")[0] in OWN_FOLDERS for prefix in DAYS)


def test_what_waits_or_is_counted_on_is_touched_by_no_rule() -> None:
    assert {prefix.partition("/")[0] for prefix in DAYS}.isdisjoint(KEPT)
    below_controller = {prefix for prefix in DAYS if prefix.startswith("controller")}
    assert below_controller == {HISTORY, claim_object("")}, "the lanes' states lie beside these"


def test_each_folder_is_kept_as_long_as_something_reads_it() -> None:
    assert DAYS["workers/"] >= 7, "subscriptions keep messages for 7 days, and executions end long before"
    assert DAYS["attempts/"] >= 60
    assert DAYS["controller/claims/"] == 30
    assert DAYS["controller/history/"] == 90
    assert DAYS["outcomes/"] >= 365, "until then a proof is made from the outcomes themselves"
