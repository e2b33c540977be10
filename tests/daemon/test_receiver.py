"""The receiver by itself, on a real port and a real database: bounds, bad days, and its end."""

import gzip
import logging
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from anyio.abc import SocketStream
from structlog.testing import capture_logs

from orchestrator.app import build_keys
from orchestrator.clock import utc_now
from orchestrator.config import understand
from orchestrator.core.fact import Event, Fact
from orchestrator.daemon import bodies, callbacks, listening, recorder
from orchestrator.daemon.book import Book
from orchestrator.daemon.callback_tally import CallbackTally, Result
from orchestrator.daemon.recorder import Desk, Recorder, Verdict
from orchestrator.store.engine import Database, open_database, sqlite_path
from orchestrator.store.facts import Told
from orchestrator.store.migrate import upgrade
from tests.daemon.customers import TENCENT
from tests.daemon.posts import Written, tencent, tencent_raw
from tests.postgres_server import running_server
from tests.store.rows import query, value

pytestmark = pytest.mark.anyio

HANDLES = "SELECT vendor_task_id FROM vendor_fact ORDER BY vendor_task_id"
LOCAL = listening.Listen(key="callbacks.listen", host="127.0.0.1", port=0)
LIMIT = 4_096


@dataclass
class Post:
    """A receiver that listens, and who posts to it."""

    port: int
    book: Book
    database: Database
    session: aiohttp.ClientSession
    stack: AsyncExitStack

    async def send(self, written: Written) -> int:
        """Post a callback; return the status."""
        url = f"http://127.0.0.1:{self.port}/callbacks/{written.account}"
        async with self.session.post(url, data=written.body, headers=written.headers) as answer:
            await answer.read()
            return answer.status

    async def begin(self, written: Written) -> SocketStream:
        """Post all of a callback but its last byte."""
        stream = await self.stack.enter_async_context(
            await anyio.connect_tcp("127.0.0.1", self.port)
        )
        head = f"POST /callbacks/{written.account} HTTP/1.1\r\nHost: here\r\n"
        headers = {**written.headers, "Content-Length": str(len(written.body))}
        lines = "".join(f"{name}: {text}\r\n" for name, text in headers.items())
        await stream.send(f"{head}{lines}\r\n".encode() + written.body[:-1])
        return stream


async def status_of(stream: SocketStream) -> int:
    """Return the status of the answer that comes."""
    with anyio.fail_after(10):
        return int((await stream.receive()).split()[1])


@asynccontextmanager
async def posting(database: Database) -> AsyncIterator[Post]:
    """Receive callbacks, without a daemon around it."""
    accounts = {TENCENT.name: {**TENCENT.settings, "endpoint": "http://vendor.invalid"}}
    book = Book(build_keys(understand({"accounts": accounts}, Path("/nowhere/c.toml"), {})))
    desk = Desk(database=database, daemon_name="one", nudge=lambda: None)
    async with AsyncExitStack() as stack:
        bound = stack.enter_context(listening.bind(LOCAL))
        assert bound is not None
        port = bound.getsockname()[1]
        session = await stack.enter_async_context(aiohttp.ClientSession())
        mailbox = callbacks.Mailbox(
            book=book, tally=CallbackTally(), now=utc_now, max_body_bytes=LIMIT
        )
        async with callbacks.receive(bound, desk, mailbox):
            yield Post(port, book, database, session, stack)


@pytest.fixture
async def post(database: Database) -> AsyncIterator[Post]:
    async with posting(database) as opened:
        yield opened


async def handles(database: Database) -> list[str]:
    return [handle for (handle,) in await query(database, HANDLES)]


def ended(handle: str, **more: Any) -> Written:
    return tencent(902, handle, LeaveCode=99, **more)


# --- who posts badly


async def test_a_body_that_does_not_come_is_not_waited_for(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_WITHIN_S", 0.05)
    stream = await post.begin(ended("h1"))
    assert await status_of(stream) == 408
    assert await handles(post.database) == []


async def test_who_is_slow_delays_nobody(post: Post) -> None:
    slow = [await post.begin(ended(f"s{n}")) for n in range(20)]
    assert await post.send(ended("quick")) == 200
    assert await handles(post.database) == ["quick"]
    for stream in slow:
        await stream.send(b"}")
        assert await status_of(stream) == 200
    assert len(await handles(post.database)) == 21


async def test_one_more_than_can_be_looked_at_comes_again(
    post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "IN_FLIGHT_MAX", 1)
    first = await post.begin(ended("h1"))

    async def refused() -> bool:
        return await post.send(ended("h2")) == 503

    with anyio.fail_after(10):
        while not await refused():
            pass
    await first.send(b"}")
    assert await status_of(first) == 200
    assert await post.send(ended("h3")) == 200


async def test_who_goes_away_or_speaks_no_http_leaves_no_line(
    post: Post, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "aiohttp"), capture_logs() as lines:
        gone = await post.begin(ended("h1"))
        await gone.aclose()
        stranger = await anyio.connect_tcp("127.0.0.1", post.port)
        async with stranger:
            await stranger.send(b"\x16\x03\x01\x02\x00\x01\x00 no HTTP\r\n\r\n")
            assert await status_of(stranger) == 400
        assert await post.send(ended("h2")) == 200
    assert [record.getMessage() for record in caplog.records if record.levelno > 20] == []
    assert [line for line in lines if line["log_level"] != "info"] == []


async def test_signed_is_what_was_sent_and_not_what_it_unpacks_to(post: Post) -> None:
    packed = tencent_raw(gzip.compress(ended("h1").body))
    headers = {**packed.headers, "Content-Encoding": "gzip"}
    # Its signature is right, and it is no JSON.
    assert await post.send(replace(packed, headers=headers)) == 400


# --- when it happened


@pytest.mark.parametrize(
    ("ahead", "told_ahead"),
    [
        (timedelta(hours=1), timedelta(hours=1)),
        (timedelta(hours=-1), timedelta(hours=-1)),
        # What a header of whole seconds says of a clock that is right changes nothing.
        (timedelta(0), timedelta(milliseconds=400)),
    ],
)
async def test_times_are_the_database_s(
    post: Post, ahead: timedelta, told_ahead: timedelta
) -> None:
    post.book.note_offset("vendor.invalid", told_ahead)
    happened = utc_now().replace(microsecond=0) - timedelta(minutes=1)
    told_ms = int((happened + ahead).timestamp() * 1000)
    assert await post.send(ended("h1", at_ms=told_ms)) == 200
    told = await value(post.database, "SELECT event_at FROM vendor_fact")
    stored = datetime.fromisoformat(told) if isinstance(told, str) else told
    assert stored.replace(tzinfo=UTC) == happened


# --- when the database has a bad day


async def test_while_somebody_holds_the_lock_the_vendor_is_asked_to_come_again(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "KEPT_WITHIN_S", 0.2)
    database = open_database(sqlite_url)
    async with posting(database) as post:
        with closing(sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            assert await post.send(ended("h1", at_ms=1_767_323_045_123)) == 503
            holder.execute("ROLLBACK")
        assert await post.send(ended("h1", at_ms=1_767_323_045_123)) == 200
        assert await handles(database) == ["h1"]
    await database.close()


async def test_while_the_server_is_away_the_vendor_is_asked_to_come_again(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        await upgrade(server.url())
        database = open_database(server.url())
        with capture_logs() as lines:
            async with posting(database) as post:
                assert await post.send(ended("h1")) == 200
                server.stop()
                assert [await post.send(ended(f"h{n}")) for n in (2, 3)] == [503, 503]
                server.start()
                assert [await post.send(ended(f"h{n}")) for n in (2, 3)] == [200, 200]
                assert await handles(database) == ["h1", "h2", "h3"]
        await database.close()
    assert [line["event"] for line in lines].count("callbacks_put_off") == 1


# --- the recorder


def told(key: str, **changes: Any) -> Told:
    fact = Fact(key=key, event=Event.STARTED, event_at=datetime(2026, 3, 1, tzinfo=UTC))
    return Told(account="acc", facts=(replace(fact, vendor_task_id=key, **changes),))


async def record(database: Database, *some: Told) -> dict[str, Verdict]:
    """Record all of it at once; return what became of each."""
    writer = Recorder(Desk(database=database, daemon_name="one", nudge=lambda: None))
    verdicts: dict[str, Verdict] = {}

    async def one(each: Told) -> None:
        verdicts[each.facts[0].key] = await writer.record(each)

    async with anyio.create_task_group() as writing:
        async with anyio.create_task_group() as senders:
            for each in some:
                senders.start_soon(one, each)
            writing.start_soon(writer.run)
        writer.finish()
    return verdicts


async def test_what_cannot_be_written_keeps_nothing_else_back(database: Database) -> None:
    with capture_logs() as lines:
        verdicts = await record(database, told("a"), told("b", position=2**70), told("c"))
    assert verdicts == {"a": Verdict.KEPT, "b": Verdict.FAILED, "c": Verdict.KEPT}
    assert await handles(database) == ["a", "c"]
    # The batch, and the one that it was.
    assert [line["callbacks"] for line in lines if line["event"] == "facts_unwritten"] == [3, 1]


async def test_many_are_written_together(database: Database) -> None:
    many = [told(f"k{n:04}") for n in range(1_000)]
    assert set((await record(database, *many)).values()) == {Verdict.KEPT}
    written = await value(database, "SELECT count(DISTINCT received_at) FROM vendor_fact")
    assert written <= len(many) / 10


async def test_a_recorder_that_is_full_or_ends_takes_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "QUEUE_MAX", 1)
    monkeypatch.setattr(recorder, "KEPT_WITHIN_S", 0.05)
    writer = Recorder(Desk(database=database, daemon_name="one", nudge=lambda: None))
    # Nobody writes yet: the first waits in vain, the second finds no place.
    assert [await writer.record(told(key)) for key in ("a", "b")] == [Verdict.BUSY] * 2
    writer.finish()
    await writer.run()
    assert await handles(database) == ["a"]
    assert await writer.record(told("c")) is Verdict.BUSY


# --- beginning and end


async def test_what_is_open_at_the_end_is_answered(database: Database) -> None:
    statuses: list[int] = []

    async def end_late(stream: SocketStream, post: Post, body: bytes) -> None:
        """Send the body when nobody is let in any more."""
        with anyio.fail_after(10), suppress(OSError):
            while True:
                await (await anyio.connect_tcp("127.0.0.1", post.port)).aclose()
        await stream.send(body)
        statuses.append(await status_of(stream))

    async with (
        AsyncExitStack() as streams,
        anyio.create_task_group() as tasks,
        posting(database) as post,
    ):
        stream = await streams.enter_async_context(await anyio.connect_tcp("127.0.0.1", post.port))
        written = ended("h1")
        sign, length = written.headers["Sign"], len(written.body)
        head = f"POST /callbacks/tencent HTTP/1.1\r\nHost: here\r\nSign: {sign}\r\n"
        expects = f"Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        await stream.send(f"{head}{expects}".encode())
        assert await status_of(stream) == 100  # it is being answered
        tasks.start_soon(end_late, stream, post, written.body)
    assert statuses == [200]
    assert await handles(database) == ["h1"]


# --- what the log says


def test_refusals_are_told_once_and_then_summed() -> None:
    tally = CallbackTally()
    with capture_logs() as lines:
        for _ in range(3):
            tally.count("acc", Result.FORGED, "the signature is wrong")
        tally.count("acc", Result.KEPT, "")
        tally.count("other", Result.GARBLED, "no JSON")
        tally.tell()
        tally.tell()
        tally.count("acc", Result.FORGED, "the signature is wrong")
    said = [(line["event"], line["account"], line.get("count")) for line in lines]
    assert said == [
        ("callback_refused", "acc", None),
        ("callback_refused", "other", None),
        ("callbacks_refused", "acc", 3),
        ("callback_refused", "acc", None),
    ]
    assert tally.counts["acc", Result.FORGED] == 4
    assert tally.counts["acc", Result.KEPT] == 1
