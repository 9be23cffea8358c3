"""The examination: every check of every lane, in the order in which a person would look. What cannot be read is a finding too."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from batch.formats.kinds import NOTIFICATION
from batch.model.errors import DependencyError, DependencyForbidden, DependencyMissing
from controller.act.state import StateUnreadable, load
from controller.lanes.deadline import unmet_by_gauge
from controller.lanes.lanes import chosen_lanes
from controller.lanes.resources import DEAD_LETTER_TOPIC
from controller.model.lane import Lane
from controller.model.reading import Unknown
from controller.observe.containers import DEAD_LETTERS
from controller.observe.jobs import JobInfo
from controller.observe.waiting import waiting_of
from controller.tick.found import find_lanes
from controller.tick.outside import Outside
from fanout.doctor import address_checks, lane_checks, project_checks
from fanout.doctor.finding import Finding, Verdict, fine
from fanout.doctor.place import Place
from fanout.doctor.project_checks import Need
from fanout.doctor.readers import others_unfiltered
from fanout.doctor.scheduler_checks import SCHEDULER, of_scheduler
from fanout.doctor.services import Facts, NotServed


@dataclass(frozen=True, slots=True)
class Examiner:
    facts: Facts
    outside: Outside
    place: Place

    def examine(self, names: Sequence[str]) -> list[Finding]:
        """Of these lanes, or all, and what they share. Raises SettingsError for a name that is no lane, DependencyError when the jobs
        cannot be listed: nothing can be said then."""
        found = find_lanes(self.outside)
        jobs, lanes, refused = found.jobs, found.lanes, found.refused
        chosen = chosen_lanes(lanes, refused, names)
        findings = [] if names else [wrong for one in refused for wrong in lane_checks.of_refused(one)]
        if not jobs:
            what = f"no job in project {self.place.project}, region {self.place.region} has the label fanout-lane"
            findings.append(Finding("jobs", "lanes", Verdict.WRONG, what, "there is nothing to launch", "fanout apply jobs.yaml"))
        findings += self._bucket([jobs[lane.job].name for lane in chosen if not jobs[lane.job].env.get("BILLING_PROJECT")])
        # Dead letters first: a subscription that is to be created names their topic.
        for topic in dict.fromkeys(dead_letter_topic(jobs[lane.job]) for lane in chosen):
            findings += self._dead_letter_topic(topic)
        if lanes and not any(job.name == DEAD_LETTERS for job in jobs.values()):
            findings += self._dead_letters_job()
        if found.unread:
            findings.append(project_checks.unlisted_subscriptions(found.unread, self.place))
        for lane in chosen:
            findings += self._lane(lane, jobs[lane.job], {one.subscription for one in lanes})
        for subnet in dict.fromkeys(jobs[lane.job].subnet for lane in chosen if jobs[lane.job].subnet):
            findings += self._addresses(subnet, [lane for lane in lanes if jobs[lane.job].subnet == subnet])
        findings += lane_checks.of_callbacks(chosen, {one.name for one in lanes})
        findings += self._monitoring(chosen)
        findings += self._read(
            SCHEDULER, "ticks", lambda: of_scheduler(self.facts.scheduled_calls(), {one.name for one in lanes}, self.place)
        )
        return findings

    def _lane(self, lane: Lane, job: JobInfo, own: Collection[str]) -> Iterator[Finding]:
        """`own` are the subscriptions of all lanes."""
        dead = dead_letter_topic(job)
        yield from lane_checks.of_job(lane, job, self.place)
        yield from self._allowed(project_checks.LAUNCH, job.name, job.full_name)
        yield from self._topic(
            lane.topic,
            project_checks.PUBLISH,
            lambda found: lane_checks.of_other_subscriptions(lane.topic, list(others_unfiltered(self.facts, found, own))),
        )
        yield from self._read(
            f"subscription {lane.subscription}",
            "settings",
            lambda: lane_checks.of_subscription(lane, self.facts.subscription(lane.subscription), dead, self.place),
            lambda: lane_checks.missing_subscription(lane.subscription, lane.topic, dead, self.place),
        )
        if NOTIFICATION in lane.policy.accept:
            yield from self._read(f"bucket {self.place.bucket}", f"notifications-{lane.name}", lambda: [self._notified(lane)])
        yield from lane_checks.of_waiting(lane, waiting_of(lane, self.outside.store, self.outside.clock.now()), self.place)
        yield from self._read(f"lane {lane.name}", "state", lambda: self._state(lane))
        yield from self._allowed(project_checks.PULL, lane.subscription)
        yield from self._allowed(project_checks.READ, lane.subscription)
        yield from self._agent("subscription", lane.subscription, "roles/pubsub.subscriber")

    def _state(self, lane: Lane) -> Iterator[Finding]:
        """Whether ticks can read it, and what it says of a deadline that the gauge alone cannot meet."""
        try:
            state = load(self.outside.store, lane.name).state
        except StateUnreadable as error:
            yield lane_checks.of_unreadable_state(lane, str(error))
            return
        if unmet_by_gauge(lane, None, poked=False):
            rates = state.learned.rates(self.outside.clock.now())
            yield lane_checks.of_deadline(lane, unmet_by_gauge(lane, rates, poked=bool(state.pokes)))

    def _notified(self, lane: Lane) -> Finding:
        return project_checks.of_notifications(lane.name, lane.topic, self.facts.notified(self.place.bucket), self.place)

    def _topic(self, name: str, need: Need, of_subscriptions: Callable[[Sequence[str]], Finding]) -> Iterator[Finding]:
        def found() -> list[Finding]:
            subscriptions = self.facts.subscriptions_of(name)
            return [fine(f"topic {name}", "exists", "it exists"), of_subscriptions(subscriptions)]

        yield from self._read(f"topic {name}", "exists", found, lambda: lane_checks.missing_topic(name, self.place))
        yield from self._allowed(need, name)

    def _dead_letter_topic(self, name: str) -> Iterator[Finding]:
        def found() -> Iterator[Finding]:
            subscriptions = self.facts.subscriptions_of(name)
            yield lane_checks.of_dead_letter_topic(name, subscriptions, self.place)
            readings = self.outside.backlog.read([one.rsplit("/", 1)[-1] for one in subscriptions]) if subscriptions else {}
            yield from (lane_checks.of_undrained(one, reading, self.place) for one, reading in readings.items())

        missing = lane_checks.missing_dead_letter_topic(name, self.place)
        yield from self._read(f"topic {name}", "dead-letters-kept", found, lambda: missing)
        yield from self._allowed(project_checks.PUBLISH_DEAD, name)
        yield from self._agent("topic", name, "roles/pubsub.publisher")

    def _dead_letters_job(self) -> list[Finding]:
        return self._read(
            f"job {DEAD_LETTERS}",
            "rules",
            lambda: lane_checks.of_dead_letters_job(self.facts.job(DEAD_LETTERS), self.outside.home),
            lane_checks.missing_dead_letters_job,
        )

    def _bucket(self, unbilled: Sequence[str]) -> Iterator[Finding]:
        name = self.place.bucket

        def found() -> Iterator[Finding]:
            facts = self.facts.bucket(name)
            yield from project_checks.of_bucket(facts, self.place, unbilled)
            if facts.kms_key:
                yield from self._read(f"bucket {name}", "key", lambda: [self._key(facts.kms_key)])

        yield from self._read(f"bucket {name}", "settings", found, self._no_bucket)
        yield from self._allowed(project_checks.WRITE, name)

    def _key(self, key: str) -> Finding:
        return project_checks.of_key(key, self.facts.key_problem(key), self.place)

    def _no_bucket(self) -> Finding:
        """Raises DependencyUnavailable where it cannot be told whether one can be restored: a new one would stand in its way."""
        try:
            generation = self.facts.soft_deleted(self.place.bucket)
        except DependencyForbidden:
            generation = ""  # it is missing all the same
        return project_checks.deleted_bucket(generation, self.place) if generation else project_checks.missing_bucket(self.place)

    def _addresses(self, subnet: str, lanes: Sequence[Lane]) -> list[Finding]:
        def found() -> list[Finding]:
            try:
                return [address_checks.of_addresses(subnet, lanes, self.facts.addresses(subnet))]
            except DependencyForbidden as error:
                return [address_checks.unread(subnet, str(error))]

        return self._read(f"subnet {subnet.rsplit('/', 1)[-1]}", "addresses", found, lambda: address_checks.missing(subnet))

    def _monitoring(self, lanes: Sequence[Lane]) -> Iterator[Finding]:
        readings = self.outside.backlog.read([lane.subscription for lane in lanes]) if lanes else {}
        unknown = {name: reading.reason for name, reading in readings.items() if isinstance(reading, Unknown)}
        if not unknown and readings:
            yield fine("Cloud Monitoring", "backlog", "the backlog of every lane can be read")
        for name, reason in unknown.items():
            grant = f'gcloud projects add-iam-policy-binding {self.place.project} --member="$MEMBER" --role=roles/monitoring.viewer'
            why = "unknown is not zero: nothing is launched for the lane"
            yield Finding("Cloud Monitoring", "backlog", Verdict.WRONG, f"the backlog of {name} is unknown: {reason}", why, grant)

    def _allowed(self, need: Need, name: str, resource: str = "") -> Iterator[Finding]:
        def found() -> list[Finding]:
            lacking = self.facts.lacking(need.kind, resource or name, need.permissions)
            return [project_checks.of_caller(need, name, lacking, self.place)]

        yield from self._read(f"{need.kind} {name}", "permissions", found, silent_when_missing=True)

    def _agent(self, kind: str, name: str, role: str) -> Iterator[Finding]:
        def found() -> list[Finding]:
            return [project_checks.of_service_agent(kind, name, role, self.facts.holders(kind, name, role), self.place)]

        yield from self._read(f"{kind} {name}", "service-agent", found, silent_when_missing=True)

    def _read(
        self,
        about: str,
        check: str,
        look: Callable[[], Iterable[Finding]],
        missing: Callable[[], Finding] | None = None,
        *,
        silent_when_missing: bool = False,
    ) -> list[Finding]:
        """What the look finds. `silent_when_missing`: another check tells that the thing does not exist."""
        try:
            try:
                return list(look())
            except DependencyMissing as error:
                if missing is not None:
                    return [missing()]
                return [] if silent_when_missing else [Finding(about, check, Verdict.WRONG, str(error))]
        except NotServed as error:
            return [Finding(about, check, Verdict.NOT_CHECKED, str(error))]
        except DependencyForbidden as error:
            why = "what cannot be read cannot be said to be right: run this as somebody who may, such as roles/viewer"
            return [Finding(about, check, Verdict.UNREADABLE, str(error), why)]
        except DependencyError as error:
            return [Finding(about, check, Verdict.UNREADABLE, str(error), "it could not be checked: try again")]


def dead_letter_topic(job: JobInfo) -> str:
    """Where the job's workers, and its subscription, send dead letters."""
    return job.env.get("DEAD_LETTER_TOPIC", "") or DEAD_LETTER_TOPIC
