"""The objects of one bucket in memory, with their names in order, and how the journal's records rebuild all of them.

The names are kept sorted at every moment, as every list call walks them in order.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from local_cloud.storage.model.journal import Record
from local_cloud.storage.model.records import Bucket, StoredObject, to_json


class Shelf:
    """Not safe for threads: the model's lock covers it."""

    def __init__(self, bucket: Bucket, objects: dict[str, StoredObject] | None = None) -> None:
        self.bucket = bucket
        self.objects = objects if objects is not None else {}
        self.names = sorted(self.objects)

    def put(self, stored: StoredObject) -> None:
        if stored.name not in self.objects:
            insort(self.names, stored.name)
        self.objects[stored.name] = stored

    def drop(self, name: str) -> None:
        del self.objects[name]
        del self.names[bisect_left(self.names, name)]


@dataclass
class Replay:
    """What a journal says: the live buckets and objects, the highest generation ever given, and files that have to go."""

    shelves: dict[str, Shelf] = field(default_factory=dict)
    last_generation: int = 0
    gone_locations: set[str] = field(default_factory=set)


def bucket_record(bucket: Bucket) -> Record:
    return {"bucket": to_json(bucket)}


def bucket_gone_record(name: str) -> Record:
    return {"bucket_gone": name}


def object_record(stored: StoredObject) -> Record:
    return {"object": to_json(stored)}


def object_gone_record(stored: StoredObject) -> Record:
    return {"object_gone": [stored.bucket, stored.name, stored.location]}


def snapshot(shelves: Iterable[Shelf], last_generation: int) -> Iterator[Record]:
    """The records that say in the fewest lines what is live now."""
    yield {"generation": last_generation}
    for shelf in shelves:
        yield bucket_record(shelf.bucket)
        for stored in shelf.objects.values():
            yield object_record(stored)


def replay(records: Iterable[Record]) -> Replay:
    """Raises KeyError or TypeError on records of another layout."""
    buckets: dict[str, Bucket] = {}
    objects: dict[str, dict[str, StoredObject]] = {}
    result = Replay()
    for record in records:
        if "object" in record:
            stored = StoredObject(**record["object"])
            objects[stored.bucket][stored.name] = stored
            result.last_generation = max(result.last_generation, stored.generation)
            result.gone_locations.discard(stored.location)
        elif "object_gone" in record:
            bucket_name, name, location = record["object_gone"]
            del objects[bucket_name][name]
            result.gone_locations.add(location)
        elif "bucket" in record:
            bucket = Bucket(**record["bucket"])
            buckets[bucket.name] = bucket
            objects.setdefault(bucket.name, {})
        elif "bucket_gone" in record:
            del buckets[record["bucket_gone"]], objects[record["bucket_gone"]]
        else:
            result.last_generation = max(result.last_generation, record["generation"])
    result.shelves = {name: Shelf(bucket, objects[name]) for name, bucket in buckets.items()}
    return result
