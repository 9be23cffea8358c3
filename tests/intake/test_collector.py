"""The collector: at once when idle, together when busy, bounded always, and never an id that the broker did not give."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from batch.model.delivery import MAX_PUBLISH_BYTES, MAX_PUBLISH_MESSAGES, Outgoing
from batch.model.errors import DependencyError, DependencyUnavailable
from intake.collector import MAX_WAITING_BYTES, Collector, CollectorFull
from tests.intake.fake import FakeTopic


def message(number: int = 0, size: int = 1) -> Outgoing:
    return Outgoing(b"x" * size, {"number": str(number)})


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        await asyncio.wait_for(scenario(), 10)

    asyncio.run(limited())


async def turns(count: int = 5) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_one_message_goes_at_once_and_later_ones_together() -> None:
    async def scenario() -> None:
        topic = FakeTopic(held=True)
        collector = Collector(topic, max_in_flight=1)
        first = asyncio.create_task(collector.publish(message(0)))
        await topic.arrived(1)
        rest = [asyncio.create_task(collector.publish(message(number))) for number in range(1, 50)]
        await turns()
        assert len(topic.requests) == 1, "one in flight at most"
        assert not first.done()
        topic.open()
        assert await first == "m0"
        assert await asyncio.gather(*rest) == [f"m{number}" for number in range(1, 50)]
        assert [len(request) for request in topic.requests] == [1, 49]

    run(scenario)


def test_several_in_flight_up_to_the_bound() -> None:
    async def scenario() -> None:
        topic = FakeTopic(held=True)
        collector = Collector(topic, max_in_flight=3)
        waiting = []
        for number in range(6):
            waiting.append(asyncio.create_task(collector.publish(message(number))))
            await turns()
        assert [len(request) for request in topic.requests] == [1, 1, 1]
        topic.release()
        await topic.arrived(4)
        assert len(topic.requests[3]) == 3
        topic.open()
        await asyncio.gather(*waiting)

    run(scenario)


def test_a_batch_stays_within_count_and_bytes() -> None:
    async def scenario() -> None:
        topic = FakeTopic()
        collector = Collector(topic, max_in_flight=1)
        small = [asyncio.create_task(collector.publish(message(number))) for number in range(MAX_PUBLISH_MESSAGES + 1)]
        await asyncio.gather(*small)
        large = [asyncio.create_task(collector.publish(message(number, MAX_PUBLISH_BYTES // 2))) for number in range(3)]
        await asyncio.gather(*large)
        assert [len(request) for request in topic.requests] == [MAX_PUBLISH_MESSAGES, 1, 1, 1, 1]

    run(scenario)


@pytest.mark.parametrize(("size", "max_waiting"), [(1, 3), (MAX_WAITING_BYTES // 3, 1000)])
def test_a_full_collector_refuses_and_recovers(size: int, max_waiting: int) -> None:
    async def scenario() -> None:
        topic = FakeTopic(held=True)
        collector = Collector(topic, max_waiting=max_waiting, max_in_flight=1)
        waiting = [asyncio.create_task(collector.publish(message()))]
        await topic.arrived(1)
        waiting += [asyncio.create_task(collector.publish(message(number, size))) for number in range(3)]
        await turns()
        with pytest.raises(CollectorFull, match="already wait for topic default"):
            await collector.publish(message(9, size))
        topic.open()
        await asyncio.gather(*waiting)
        assert await collector.publish(message(10, size))

    run(scenario)


def test_a_failed_request_fails_its_own_messages_only() -> None:
    async def scenario() -> None:
        topic = FakeTopic(held=True)
        collector = Collector(topic, max_in_flight=1)
        first = asyncio.create_task(collector.publish(message()))
        await topic.arrived(1)
        second = asyncio.create_task(collector.publish(message()))
        topic.fail(DependencyUnavailable("away"))
        with pytest.raises(DependencyUnavailable):
            await first
        topic.open()
        assert await second == "m1"

    run(scenario)


@pytest.mark.parametrize("error", [DependencyUnavailable("away"), RuntimeError("a bug")])
def test_no_one_waits_for_ever_whatever_fails(error: Exception) -> None:
    async def scenario() -> None:
        topic = FakeTopic()
        topic.error = error
        collector = Collector(topic)
        results = await asyncio.gather(*(collector.publish(message()) for _ in range(3)), return_exceptions=True)
        assert results == [error] * 3

    run(scenario)


def test_an_answer_that_lacks_ids_confirms_nothing() -> None:
    async def scenario() -> None:
        class Short(FakeTopic):
            async def publish(self, messages: object) -> list[str]:
                return ["only one"]

        collector = Collector(Short())
        results = await asyncio.gather(*(collector.publish(message()) for _ in range(2)), return_exceptions=True)
        assert all(isinstance(one, DependencyError) for one in results)

    run(scenario)


def test_a_client_that_left_does_not_disturb_the_others() -> None:
    async def scenario() -> None:
        topic = FakeTopic(held=True)
        collector = Collector(topic)
        gone, stays = (asyncio.create_task(collector.publish(message(number))) for number in range(2))
        await topic.arrived(1)
        gone.cancel()
        topic.open()
        assert await stays == "m1"

    run(scenario)


def test_close_answers_what_was_accepted_and_takes_nothing_more() -> None:
    async def scenario() -> None:
        topic = FakeTopic(held=True)
        collector = Collector(topic, max_in_flight=1)
        waiting = [asyncio.create_task(collector.publish(message()))]
        await topic.arrived(1)
        waiting += [asyncio.create_task(collector.publish(message())) for _ in range(5)]
        await turns()
        closing = asyncio.create_task(collector.close())
        await turns()
        assert not closing.done()
        with pytest.raises(CollectorFull, match="about to end"):
            await collector.publish(message())
        topic.open()
        await closing
        assert all(one.done() for one in waiting)
        assert len({one.result() for one in waiting}) == 6

    run(scenario)


def test_what_is_published_together_goes_beside_single_tasks_within_its_own_bound() -> None:
    async def scenario() -> None:
        topic = FakeTopic(held=True)
        told: list[int] = []
        collector = Collector(topic, max_waiting=1, max_in_flight=2, accepted=lambda count, _at: told.append(count))
        many = [message(number) for number in range(3 * MAX_PUBLISH_MESSAGES + 1)]
        together = asyncio.create_task(collector.publish_together(many))
        await topic.arrived(2)
        await turns()
        assert [len(request) for request in topic.requests] == [MAX_PUBLISH_MESSAGES] * 2
        single = asyncio.create_task(collector.publish(message()))
        await topic.arrived(3)
        closing = asyncio.create_task(collector.close())
        await turns()
        with pytest.raises(CollectorFull, match="about to end"):
            await collector.publish_together(many)
        assert not closing.done()
        topic.open()
        assert len(set(await together)) == len(many)
        assert [one for request in topic.requests for one in request if one is not topic.requests[2][0]] == many
        await single
        await closing
        assert sum(told) == len(many) + 1

    run(scenario)


def test_a_failed_request_fails_all_that_is_published_together_once_the_others_have_ended() -> None:
    async def scenario() -> None:
        topic = FakeTopic(held=True)
        collector = Collector(topic, max_in_flight=2)
        many = [message() for _ in range(2 * MAX_PUBLISH_MESSAGES)]
        waiting = [asyncio.create_task(collector.publish_together(many))]
        await topic.arrived(2)
        topic.fail(DependencyUnavailable("away"))
        closing = asyncio.create_task(collector.close())
        await turns()
        assert not waiting[0].done()
        assert not closing.done()
        topic.open()
        with pytest.raises(DependencyUnavailable, match="away"):
            await asyncio.gather(*waiting)
        await closing

    run(scenario)


def test_close_does_not_wait_for_who_was_cancelled() -> None:
    async def scenario() -> None:
        topic = FakeTopic(held=True)
        collector = Collector(topic)
        together = asyncio.create_task(collector.publish_together([message()]))
        await topic.arrived(1)
        together.cancel()
        await asyncio.wait([together])
        await collector.close()

    run(scenario)
