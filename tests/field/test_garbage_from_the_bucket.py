"""Whatever stands where Cloud Storage should answer: each request ends in what it asked for, or in an error that names the request."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch.model.errors import DependencyUnavailable, FanoutError
from batch.services.objects import GoogleObjectStore
from batch.testing import ManualClock
from tests.field.test_refused_by_the_bucket import CALLS
from tests.seams.test_google_objects import ONE, Server, server
from tests.support import slow_but

__all__ = ["server"]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ONE, "metadata", "items", "error"]), inner, max_size=4),
    max_leaves=8,
)
ALMOST = st.builds(lambda key, value: {**ONE, key: value}, st.sampled_from([*ONE, "metadata", "contentType", "crc32c"]), VALUES)
ANSWERS = st.one_of(VALUES, ALMOST, ALMOST.map(lambda one: {"items": [one]}), VALUES.map(lambda one: {"error": one}))
BODIES = st.one_of(
    ANSWERS.map(lambda one: json.dumps(one).encode()),
    st.binary(max_size=20),
    st.sampled_from([b"", b"<html>log in</html>", b"{", b"null", b"\xff\xfe"]),
)
STATUSES = st.sampled_from([200, 200, 200, 201, 204, 206, 300, 304, 400, 403, 404, 409, 410, 411, 412, 413, 416, 418, 451])


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(status=STATUSES, body=BODIES)
@pytest.mark.parametrize("call", slow_but(list(CALLS)[:2], CALLS))
def test_no_answer_is_taken_for_a_fault_of_ours(server: Server, call: str, status: int, body: bytes) -> None:
    server.answers.clear()
    server.answers.extend([(status, b"" if status in (204, 304) else body), (404, b"The specified bucket does not exist.")])
    store = GoogleObjectStore("b", project="p", clock=ManualClock())
    error: FanoutError | None = None
    try:
        CALLS[call](store)
    except FanoutError as raised:
        error = raised
    finally:
        store.close()
        server.answers.clear()
    assert error is not None or status < 300
    assert error is None or "one" in str(error) or "bucket b" in str(error)


@pytest.mark.parametrize("call", ["write", "info", "patch"])
def test_a_success_without_content_is_no_success(server: Server, call: str) -> None:
    server.answers.append((204, b""))
    store = GoogleObjectStore("b", project="p", timeout_s=0.2)
    with pytest.raises(DependencyUnavailable, match=r"object one in bucket b .*(does not come from Cloud Storage|answered 204)"):
        CALLS[call](store)
    store.close()
