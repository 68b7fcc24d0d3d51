"""Only blocks that take too long are interrupted, and never after their end."""

from __future__ import annotations

import threading
import time

import duckdb
import pytest

from infertrace.collector.store.store import QueryTimeoutError
from infertrace.collector.time_limits import TimeLimits

TIMEOUT_S = 0.1
ENDLESS = "SELECT count(*) FROM range(1_000_000_000_000) WHERE sin(range) > 2"


def test_never_after_the_end() -> None:
    timeouts = TimeLimits(TIMEOUT_S, QueryTimeoutError)
    late: list[int] = []
    slow = threading.Event()
    for _ in range(3):
        with timeouts.limit(lambda: late.append(1)):
            pass
        before = len(late)
        with pytest.raises(QueryTimeoutError), timeouts.limit(slow.set):  # noqa: PT012
            assert slow.wait(60)
            raise InterruptedError
        slow.clear()
        assert len(late) == before
    timeouts.close()


def test_another_error_stays_what_it_is() -> None:
    timeouts = TimeLimits(60, QueryTimeoutError)
    with pytest.raises(ZeroDivisionError), timeouts.limit(lambda: None):
        _ = 1 / 0
    timeouts.close()


def test_a_statement_that_begins_after_the_time() -> None:
    """An interrupt that comes while nothing runs is repeated."""
    timeouts = TimeLimits(TIMEOUT_S, QueryTimeoutError)
    connection = duckdb.connect()
    with (  # noqa: PT012
        pytest.raises(QueryTimeoutError),
        timeouts.limit(connection.interrupt),
    ):
        time.sleep(2 * TIMEOUT_S)
        connection.execute(ENDLESS).fetchall()
    assert connection.execute("SELECT 42").fetchall() == [(42,)]
    connection.close()
    timeouts.close()


def test_many_at_once() -> None:
    connection = duckdb.connect(config={"threads": 1})
    outcomes: list[str] = []

    def ask(sql: str, timeouts: TimeLimits) -> None:
        with connection.cursor() as cursor:
            try:
                with timeouts.limit(cursor.interrupt):
                    cursor.execute(sql).fetchall()
                outcomes.append("answered")
            except QueryTimeoutError:
                outcomes.append("ended")

    for sql, timeout_s in (("SELECT 1", 60), (ENDLESS, TIMEOUT_S)):
        timeouts = TimeLimits(timeout_s, QueryTimeoutError)
        threads = [threading.Thread(target=ask, args=(sql, timeouts)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        timeouts.close()
    assert outcomes == ["answered"] * 8 + ["ended"] * 8
    connection.close()
