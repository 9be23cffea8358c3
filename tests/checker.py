"""An independent check of what a drain left behind: plain HTTP and raw gRPC, and nothing of the product, so that a wrong codec
cannot agree with itself. It changes nothing (messages that it has to look at are given back at once).

    python -m tests.checker --storage http://127.0.0.1:P --bucket B --submission ID [--submission ID …]
        [--pubsub 127.0.0.1:Q --project P --subscription S --dead-letter-subscription D]

One line for each check; the exit code is 1 when one of them failed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import threading
import urllib.parse
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

STATES = ("succeeded", "superseded", "cancelled", "dead")
NAMED = 5
PULL_LIMIT = 1000


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `problems` is empty when it is as it must be."""

    name: str
    seen: str
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        more = f" and {len(self.problems) - NAMED} more" if len(self.problems) > NAMED else ""
        trouble = f": {'; '.join(self.problems[:NAMED])}{more}" if self.problems else ""
        return f"{'FAIL' if self.problems else 'ok  '} {self.name} ({self.seen}){trouble}"


class Bucket:
    """A bucket over the JSON API."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        self._host = urllib.parse.urlsplit(endpoint).netloc
        self._bucket = urllib.parse.quote(bucket, safe="")
        self._local = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def _get(self, path: str) -> bytes:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection(self._host, timeout=60)
            self._connections.append(connection)
        connection.request("GET", path)
        response = connection.getresponse()
        data = response.read()
        if response.status != 200:
            raise SystemExit(f"GET {path} answered {response.status}: {data[:300]!r}")
        return data

    def close(self) -> None:
        """Close the connections of all threads."""
        for connection in self._connections:
            connection.close()

    def list(self, prefix: str) -> Iterator[dict[str, Any]]:
        token = ""
        while True:
            query = urllib.parse.urlencode({"prefix": prefix, "maxResults": 1000, "projection": "noAcl", "pageToken": token})
            page = json.loads(self._get(f"/storage/v1/b/{self._bucket}/o?{query}"))
            yield from page.get("items", [])
            token = page.get("nextPageToken", "")
            if not token:
                return

    def read(self, name: str) -> bytes:
        return self._get(f"/download/storage/v1/b/{self._bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media")

    def contents(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        names = list(names)
        with ThreadPoolExecutor(8) as pool:
            yield from zip(names, pool.map(self.read, names), strict=True)


class Broker:
    """Subscriptions over raw gRPC."""

    def __init__(self, address: str, project: str) -> None:
        import grpc
        from google.pubsub_v1.types import pubsub

        self._project, self._types = project, pubsub
        self._channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])

    def _call(self, method: str, request: Any, response: Any) -> Any:
        call = self._channel.unary_unary(
            f"/google.pubsub.v1.Subscriber/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=response.FromString,
        )
        return call(request, timeout=30)

    def look(self, subscription: str) -> list[dict[str, str]]:
        """The attributes of all messages that can be had now; all are given back."""
        from google.protobuf import empty_pb2

        path = f"projects/{self._project}/subscriptions/{subscription}"
        found: list[dict[str, str]] = []
        ack_ids: list[str] = []
        while True:
            request = self._types.PullRequest.pb()(subscription=path, max_messages=PULL_LIMIT, return_immediately=True)
            messages = self._call("Pull", request, self._types.PullResponse.pb()).received_messages
            found += [dict(one.message.attributes) for one in messages]
            ack_ids += [one.ack_id for one in messages]
            if not messages:
                break
        for at in range(0, len(ack_ids), PULL_LIMIT):
            back = self._types.ModifyAckDeadlineRequest.pb()(subscription=path, ack_ids=ack_ids[at : at + PULL_LIMIT])
            self._call("ModifyAckDeadline", back, empty_pb2.Empty)
        return found

    def close(self) -> None:
        self._channel.close()


@dataclass
class Facts:
    """What the bucket says. `submitted`: type by id; `lines`: all outcome lines by id, of submitted tasks only."""

    submitted: dict[str, str] = field(default_factory=dict)
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    summary_problems: list[str] = field(default_factory=list)

    def state(self, task_id: str) -> str:
        found = {line["outcome"] for line in self.lines.get(task_id, [])}
        return next((state for state in STATES if state in found), "missing")

    def succeeded(self, task_type: str) -> list[str]:
        return [one for one, its_type in self.submitted.items() if its_type == task_type and self.state(one) == "succeeded"]


def gather(bucket: Bucket, submissions: Iterable[str]) -> Facts:
    """Read manifests and all outcomes of the shards that they name."""
    facts = Facts()
    shards: set[str] = set()
    for submission in submissions:
        objects = [one["name"] for one in bucket.list(f"submissions/{submission}/")]
        manifests = [name for name in objects if "/manifest-" in name]
        lines = [json.loads(line) for _, data in bucket.contents(manifests) for line in data.splitlines()]
        facts.submitted |= {line["task_id"]: line["task_type"] for line in lines}
        shards |= {line["shard"] for line in lines}
        summary_name = f"submissions/{submission}/submission.json"
        if summary_name not in objects:
            facts.summary_problems.append(f"{submission} is not closed")
            continue
        summary = json.loads(bucket.read(summary_name))
        if (summary["task_count"], summary["part_count"]) != (len(lines), len(manifests)):
            facts.summary_problems.append(f"{submission} says {summary['task_count']} tasks, its manifests hold {len(lines)}")
        if not {line["shard"] for line in lines} <= set(summary["shards"]):
            facts.summary_problems.append(f"{submission} does not name all shards of its tasks")
    names = [one["name"] for shard in sorted(shards) for one in bucket.list(f"outcomes/{shard}/")]
    for _, data in bucket.contents(names):
        for raw in data.splitlines():
            line = json.loads(raw)
            if line["task_id"] in facts.submitted:
                facts.lines[line["task_id"]].append(line)
    return facts


def check_states(facts: Facts) -> Iterator[Check]:
    yield Check("submissions are closed and say how many tasks they have", f"{len(facts.submitted)} tasks", facts.summary_problems)
    states = Counter(facts.state(task_id) for task_id in facts.submitted)
    seen = ", ".join(f"{states[state]} {state}" for state in (*STATES, "missing"))
    missing = [task_id for task_id in facts.submitted if facts.state(task_id) == "missing"]
    yield Check("every task has one end state", seen, [f"{task_id} has no outcome" for task_id in missing])
    odd = [
        f"{one['task_id']} has outcome {one['outcome']!r}" for all_ in facts.lines.values() for one in all_ if one["outcome"] not in STATES
    ]
    repeated = sum(len(lines) - 1 for lines in facts.lines.values())
    yield Check("outcomes are of the closed set", f"{repeated} written again", odd)
    dead = [task_id for task_id in facts.submitted if facts.state(task_id) == "dead"]
    silent = [task_id for task_id in dead if not any(line.get("reason") for line in facts.lines[task_id])]
    yield Check("nothing is dead without a reason", f"{len(dead)} dead", [f"{task_id} has none" for task_id in silent])


def check_files(bucket: Bucket, facts: Facts) -> Iterator[Check]:
    """Outputs of file_processing, by the `output` that an outcome names."""
    objects = {one["name"]: one for one in bucket.list("processed/")}
    claims: dict[str, set[str]] = defaultdict(set)
    for task_id in facts.succeeded("file_processing"):
        for line in facts.lines[task_id]:
            if line["outcome"] == "succeeded":
                claims[line.get("output", "")].add(task_id)
    problems = []
    for name, task_ids in claims.items():
        owner = objects.get(name, {}).get("metadata", {}).get("task_id")
        if name not in objects:
            problems.append(f"{name or 'an unnamed output'} of {sorted(task_ids)[0]} does not exist")
        elif owner not in task_ids:
            problems.append(f"{name} belongs to {owner}, which did not succeed in writing it")
    yield Check("every succeeded file task has its output", f"{len(claims)} names", problems)
    stolen = [name for name, one in objects.items() if one.get("metadata", {}).get("task_id") in facts.submitted and name not in claims]
    yield Check("no output without an outcome that names it", f"{len(objects)} objects", [f"{name} has none" for name in stolen])
    yield written_once("outputs of files were written once", [one for name, one in objects.items() if name in claims])


def written_once(name: str, objects: list[dict[str, Any]]) -> Check:
    """No history is kept: what can be seen is that metadata never changed, and that no two objects share a generation."""
    changed = [f"{one['name']} has metageneration {one['metageneration']}" for one in objects if str(one["metageneration"]) != "1"]
    generations = Counter(str(one["generation"]) for one in objects)
    shared = [f"generation {generation} has {count} objects" for generation, count in generations.items() if count > 1]
    return Check(name, f"{len(objects)} objects", changed + shared)


def check_data(bucket: Bucket, facts: Facts) -> Iterator[Check]:
    """Outputs of data_transformation: the JSON, and the data beside it."""
    objects = {one["name"]: one for one in bucket.list("results/")}
    succeeded = facts.succeeded("data_transformation")
    there = [task_id for task_id in succeeded if f"results/{task_id}.json" in objects]
    problems = [f"results/{task_id}.json does not exist" for task_id in set(succeeded) - set(there)]
    used: dict[str, int] = {}
    for name, data in bucket.contents(f"results/{task_id}.json" for task_id in there):
        task_id = name.removeprefix("results/").removesuffix(".json")
        body = json.loads(data)
        named = body.get("data", {})
        found = objects.get(named.get("object", ""))
        used[task_id] = attempt_of(named.get("object", ""), task_id)
        if body.get("task_id") != task_id or objects[name].get("metadata", {}).get("task_id") != task_id:
            problems.append(f"{name} is of another task")
        elif found is None or str(found["generation"]) != str(named.get("generation")):
            problems.append(f"{name} names {named.get('object')} at generation {named.get('generation')}, which is not there")
        elif int(found["size"]) != named.get("size"):
            problems.append(f"{name} says {named.get('size')} bytes, {named['object']} has {found['size']}")
    yield Check("every succeeded data task has its result and the data that it names", f"{len(succeeded)} tasks", problems)
    own = {name: task_id for name in objects for task_id in [owner_of(name)] if task_id in used}
    surplus = [name for name, task_id in own.items() if not name.endswith(".json") and attempt_of(name, task_id) > used[task_id]]
    yield Check("no data beside the data that a result names", f"{len(own)} objects", [f"{name} is not named" for name in surplus])
    yield written_once("results and their data were written once", [objects[name] for name in own])


def owner_of(name: str) -> str:
    """The task id in `results/<task_id>.json` or `results/<task_id>-<attempt>.<ext>`."""
    stem = name.removeprefix("results/").rsplit(".", 1)[0]
    return stem if name.endswith(".json") and len(stem) <= 36 else stem.rsplit("-", 1)[0]


def attempt_of(name: str, task_id: str) -> int:
    number = name.removeprefix(f"results/{task_id}-").split(".")[0]
    return int(number) if number.isdigit() else 0


def check_workers(bucket: Bucket, assigned: dict[str, int], *, paid_minute: bool = False) -> Iterator[Check]:
    """Shares, by the metadata of the progress objects. `assigned` says what executions were launched for, where known. With `paid_minute`
    a worker may take as many as the largest share of its execution."""
    tries: dict[str, dict[tuple[int, int], dict[str, int]]] = defaultdict(dict)
    for one in bucket.list("workers/"):
        _, _, execution, worker = one["name"].split("/")
        index, retry = worker.split("-")
        values = one.get("metadata", {})
        tries[execution][int(index), int(retry)] = {name: int(values[name]) for name in ("share", "taken", "acked", "returned")}
    uneven, over, lost = [], [], []
    for execution, workers in tries.items():
        shares = [workers[key]["share"] for key in sorted(workers) if key[1] == 0]
        if execution in assigned and sum(shares) != assigned[execution]:
            uneven.append(f"{execution}: the shares of {len(shares)} workers sum to {sum(shares)}, assigned were {assigned[execution]}")
        if shares != sorted(shares, reverse=True) or max(shares, default=0) - min(shares, default=0) > 1:
            uneven.append(f"{execution}: the shares {shares[:20]} are not an even split")
        for (index, retry), value in workers.items():
            label = f"{execution} worker {index} try {retry}: {value}"
            if value["taken"] > (max(shares) if paid_minute else value["share"]):
                over.append(label)
            if value["acked"] + value["returned"] > value["taken"]:
                lost.append(label)
    seen = f"{sum(map(len, tries.values()))} tries in {len(tries)} executions"
    yield Check("shares are an even split of what was assigned", seen, uneven)
    yield Check("no worker took more than its share", seen, over)
    yield Check("no worker acknowledged what it had not taken", seen, lost)
    unknown = sorted(set(assigned) - set(tries))
    yield Check("every execution that was named left progress", seen, [f"{execution} left none" for execution in unknown])


def check_broker(broker: Broker, facts: Facts, subscription: str, dead_letters: str) -> Iterator[Check]:
    if subscription:
        left = broker.look(subscription)
        named = [f"a message of task {one.get('task_id', '(none)')} is left" for one in left]
        yield Check(f"subscription {subscription} has nothing left to deliver", f"{len(left)} messages", named)
    if dead_letters:
        letters = broker.look(dead_letters)
        ids = {one.get("task_id", "") for one in letters}
        dead = [task_id for task_id in facts.submitted if facts.state(task_id) == "dead"]
        absent = [f"{task_id} is dead without a dead letter" for task_id in dead if task_id not in ids]
        # The broker's own forwarding gives no reason of ours; it names the subscription instead.
        mute = [one for one in letters if not one.get("dead_reason") and "CloudPubSubDeadLetterSourceSubscription" not in one]
        yield Check("every dead task has a dead letter", f"{len(dead)} dead, {len(letters)} letters", absent)
        yield Check("every dead letter says why", f"{len(letters)} letters", [f"{one.get('task_id')} says nothing" for one in mute])
        alive = [task_id for task_id in ids if task_id in facts.submitted and facts.state(task_id) == "missing"]
        yield Check("every dead letter has its outcome", f"{len(letters)} letters", [f"{task_id} has none" for task_id in alive])


def checks(options: argparse.Namespace) -> Iterator[Check]:
    """All checks, in the order of their importance."""
    bucket = Bucket(options.storage, options.bucket)
    facts = gather(bucket, options.submission)
    yield from check_states(facts)
    yield from check_files(bucket, facts)
    yield from check_data(bucket, facts)
    assigned = {name: int(count) for name, count in (one.rsplit("=", 1) for one in options.assigned)}
    yield from check_workers(bucket, assigned, paid_minute=options.paid_minute)
    bucket.close()
    if options.pubsub:
        broker = Broker(options.pubsub, options.project)
        yield from check_broker(broker, facts, options.subscription, options.dead_letter_subscription)
        broker.close()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.checker", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--storage", required=True, help="http://host:port of Cloud Storage")
    made.add_argument("--bucket", required=True)
    made.add_argument("--submission", action="append", required=True, help="may be repeated")
    made.add_argument("--pubsub", default="", help="host:port of Pub/Sub")
    made.add_argument("--project", default="", help="the project of the subscriptions")
    made.add_argument("--subscription", default="", help="must have nothing left to deliver")
    made.add_argument("--dead-letter-subscription", default="", help="must hold a dead letter for each dead task")
    made.add_argument("--assigned", action="append", default=[], metavar="EXECUTION=COUNT", help="what an execution was launched for")
    made.add_argument("--paid-minute", action="store_true", help="workers may go on, up to the largest share of their execution")
    return made


def main(arguments: list[str] | None = None, say: Callable[[str], None] = print) -> int:
    failed = 0
    for check in checks(parser().parse_args(arguments)):
        say(str(check))
        failed += bool(check.problems)
    say(f"{failed} checks failed" if failed else "all checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
