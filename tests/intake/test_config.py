"""Settings of the front door: all problems at once, and which lane is the default."""

from __future__ import annotations

import pytest

from batch.model.errors import SettingsError
from intake.config import intake_settings

BASE = {"GOOGLE_CLOUD_PROJECT": "p"}


def test_one_topic_is_the_default_lane() -> None:
    settings = intake_settings({**BASE, "TOPIC_NAME": "tasks"})
    assert (settings.topics, settings.default_lane) == ({"default": "tasks"}, "default")
    assert intake_settings({**BASE, "TOPIC_NAME": "tasks", "LANE": "bulk"}).topics == {"bulk": "tasks"}


def test_a_front_door_on_a_laptop_is_not_open_to_others() -> None:
    found = {**BASE, "TOPIC_NAME": "tasks"}
    assert intake_settings(found).host == "0.0.0.0"
    assert intake_settings({**found, "PUBSUB_EMULATOR_HOST": "127.0.0.1:1"}).host == "127.0.0.1"
    assert intake_settings({**found, "PUBSUB_EMULATOR_HOST": "127.0.0.1:1", "HOST": "::"}).host == "::"


def test_several_lanes() -> None:
    settings = intake_settings({**BASE, "LANES": "slow=a, urgent=b"})
    assert (settings.topics, settings.default_lane) == ({"slow": "a", "urgent": "b"}, "slow")
    assert intake_settings({**BASE, "LANES": "slow=a,urgent=b", "LANE": "urgent"}).default_lane == "urgent"


@pytest.mark.parametrize("lanes", ["a", "a=", "=b", "a=b,a=c", "a/b=c", ","])
def test_lanes_that_cannot_be_meant(lanes: str) -> None:
    with pytest.raises(SettingsError, match="LANES"):
        intake_settings({**BASE, "LANES": lanes})


def test_all_problems_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        intake_settings({"PORT": "http", "MAX_WAITING": "0"})
    assert [problem.split("=")[0].split(" ")[0] for problem in caught.value.problems] == [
        "GOOGLE_CLOUD_PROJECT",
        "PORT",
        "MAX_WAITING",
        "neither",
    ]


def test_a_topic_and_a_known_default_lane_are_needed() -> None:
    with pytest.raises(SettingsError, match="TOPIC_NAME"):
        intake_settings(BASE)
    with pytest.raises(SettingsError, match="did you mean 'urgent'"):
        intake_settings({**BASE, "LANES": "slow=a,urgent=b", "LANE": "urgnt"})
