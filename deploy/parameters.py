"""Reads a parameters file: `python parameters.py FILE` prints NAME=value lines, or says every problem with its line.

The file is read as text and never executed. Values hold no quotes, no shell signs and nothing unseen, so that they are the same everywhere.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"
_MEMBER = rf"((user|group|serviceAccount):{_EMAIL}|domain:[a-z0-9.-]+)"
_SCHEDULE = r"[0-9*/,-]+( [0-9*/,A-Za-z-]+){4}"


@dataclass(frozen=True)
class Parameter:
    """`form`: what the whole value matches; `rule`: the same in words. Without a default it is required."""

    form: str
    rule: str
    default: str | None = None


PARAMETERS: Mapping[str, Parameter] = {
    "PROJECT": Parameter(r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "a project id: 6 to 30 small letters, digits and hyphens, as my-project"),
    "REGION": Parameter(r"[a-z]+-[a-z]+[0-9]+", "a region, as us-central1"),
    "BUCKET": Parameter(r"[a-z0-9][a-z0-9_-]{1,53}[a-z0-9]", "a bucket's name: 3 to 55 small letters, digits, hyphens and underscores"),
    "JOBS_FILE": Parameter(r"[A-Za-z0-9._/-]+", "a path of letters, digits and ._/-", "jobs.yaml"),
    "IMAGE": Parameter(r"([a-z0-9._/-]+@sha256:[0-9a-f]{64})?", "an image by digest, NAME@sha256:…, so that what runs cannot change", ""),
    "BASE_DIGEST": Parameter(r"(sha256:[0-9a-f]{64})?", "sha256: and 64 digits of a hash", ""),
    "BUILD_REGION": Parameter(r"([a-z]+-[a-z]+[0-9]+|global)?", "a region, as us-central1, or global", ""),
    "HANDLERS": Parameter(r"[A-Za-z_][\w.]*(,[A-Za-z_][\w.]*)*", "modules, separated by commas", "batch.handlers"),
    "NOTIFY_EMAIL": Parameter(f"({_EMAIL})?", "an email address", ""),
    "NOTIFY_CHANNEL": Parameter(r"(projects/[a-z0-9-]+/notificationChannels/[0-9]+)?", "projects/PROJECT/notificationChannels/NUMBER", ""),
    "COST_A_DAY_USD": Parameter(r"(0|[1-9][0-9]*)(\.[0-9]+)?", "dollars, a number", "20"),
    "RUNBOOKS": Parameter(r"https://[A-Za-z0-9._/-]+", "an https address", "https://github.com/my-team/fanout/blob/main/docs/runbooks.md"),
    "WORKER_ACCOUNTS": Parameter(r"one|lane", "one, or lane", "one"),
    "INGRESS": Parameter(r"internal|internal-and-cloud-load-balancing|all", "internal, internal-and-cloud-load-balancing or all", "all"),
    "CALLERS": Parameter(
        rf"({_MEMBER}(,{_MEMBER})*)?", "members such as user:EMAIL, group:EMAIL, serviceAccount:EMAIL, separated by commas", ""
    ),
    "PUBLIC_INTAKE": Parameter(r"yes|no", "yes or no", "no"),
    "API_KEYS_SECRET": Parameter(r"[A-Za-z0-9_-]*", "the name of a secret in Secret Manager", ""),
    "TICK_SCHEDULE": Parameter(_SCHEDULE, "five fields of cron", "* * * * *"),
    "DEAD_LETTERS_SCHEDULE": Parameter(_SCHEDULE, "five fields of cron", "7 * * * *"),
}


def read(text: str, name: str = "parameters") -> tuple[dict[str, str], list[str]]:
    """The values with defaults filled in, and all problems, each with file and line."""
    given: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            problems += (f"{name}:{number}: {problem}" for problem in _read_line(line, given))
    problems += (f"{name}: {key} is missing: {one.rule}" for key, one in PARAMETERS.items() if one.default is None and key not in given)
    values = {key: given.get(key, one.default or "") for key, one in PARAMETERS.items()}
    if not problems:
        problems += (f"{name}: {problem}" for problem in _together(values))
    return values, problems


def _read_line(line: str, given: dict[str, str]) -> Iterator[str]:
    if line.endswith("\r"):
        yield "the line ends as on Windows (CR LF): save the file with LF"
        return
    found = re.fullmatch(r"([^=]*)=(.*)", line)
    key, value = (found[1], found[2]) if found else (line, "")
    if found is None or not re.fullmatch(r"\s*\w+\s*", key, re.ASCII):
        yield f"{line.strip()[:60]!r} is not NAME=value"
        return
    if key.strip() not in PARAMETERS:
        near = difflib.get_close_matches(key.strip().upper(), PARAMETERS, n=1)
        yield f"{key.strip()} is no parameter{f'; did you mean {near[0]}?' if near else ': parameters.example.env has all of them'}"
        return
    if key != key.strip() or value != value.strip():
        yield f"{key.strip()}: spaces around the name or the value: write NAME=value"
        return
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    if key in given:
        yield f"{key} is there twice"
    elif not re.fullmatch(PARAMETERS[key].form, value, re.ASCII):
        yield f"{key}={value[:100]!r} must be {PARAMETERS[key].rule}"
    given[key] = value


def _together(values: Mapping[str, str]) -> Iterator[str]:
    """What single values do not show."""
    if not values["IMAGE"] and re.fullmatch("sha256:0+", values["BASE_DIGEST"]):
        yield "BASE_DIGEST is the example's, and no image has it: deploy/parameters.example.env says how to find the one of today"
    if not values["IMAGE"] and not values["BASE_DIGEST"]:
        yield "neither IMAGE nor BASE_DIGEST is set: the image to run, or the base image to build on"
    if values["NOTIFY_EMAIL"] and values["NOTIFY_CHANNEL"]:
        yield "NOTIFY_EMAIL and NOTIFY_CHANNEL are both set: alerts go to one of them"
    if not values["NOTIFY_EMAIL"] and not values["NOTIFY_CHANNEL"]:
        yield "neither NOTIFY_EMAIL nor NOTIFY_CHANNEL is set: where alerts go"
    if values["PUBLIC_INTAKE"] == "yes" and not values["API_KEYS_SECRET"]:
        yield "PUBLIC_INTAKE=yes without API_KEYS_SECRET: everybody could submit; name the secret with the callers' keys"


def main(arguments: list[str]) -> int:
    path = Path(arguments[0])
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        sys.stderr.write(f"{path}: cannot be read: {error}\n")
        return 2
    values, problems = read(text, str(path))
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    if problems:
        return 2
    sys.stdout.writelines(f"{key}={value}\n" for key, value in values.items())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
