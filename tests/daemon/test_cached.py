"""A reading that is shared: how often it is made, how long it is good, and what if none comes."""

import anyio
import anyio.lowlevel
import pytest

from orchestrator.daemon.monitoring import cached
from orchestrator.daemon.monitoring.cached import Cached, Missing
from orchestrator.errors import OrchestratorError, SchemaError

pytestmark = pytest.mark.anyio

LONG_S = 3_600.0


class Source:
    """What is read: a number that rises, when it may."""

    def __init__(self) -> None:
        self.reads = 0
        self.may_answer = anyio.Event()
        self.may_answer.set()
        self.trouble: Exception | None = None

    async def read(self) -> int:
        self.reads += 1
        number = self.reads
        await self.may_answer.wait()
        if self.trouble is not None:
            raise self.trouble
        return number


async def ask(one: Cached[int], times: int) -> list[int | Missing]:
    """Ask so many times at once."""
    answers: list[int | Missing] = []

    async def ask_once() -> None:
        answers.append(await one.get())

    async with anyio.create_task_group() as asking:
        for _ in range(times):
            asking.start_soon(ask_once)
    return answers


async def test_nothing_is_read_while_nobody_asks() -> None:
    source = Source()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Cached(source.read, LONG_S).run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert source.reads == 0


async def test_many_who_ask_share_one_reading() -> None:
    source = Source()
    one = Cached(source.read, LONG_S)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        assert await ask(one, 50) == [1] * 50
        assert await ask(one, 50) == [1] * 50
        tasks.cancel_scope.cancel()


async def test_a_reading_that_is_old_is_made_again() -> None:
    source = Source()
    one = Cached(source.read, keep_s=0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        first = await one.get()
        later = await one.get()
        while later == first:  # it is good for a while, as long as it took and more
            later = await one.get()
            await anyio.lowlevel.checkpoint()
        assert (first, later) == (1, 2)
        tasks.cancel_scope.cancel()


async def test_who_asks_waits_no_longer_than_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "PATIENCE_S", 0.05)
    source = Source()
    source.may_answer = anyio.Event()
    one = Cached(source.read, LONG_S)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        assert all(isinstance(answer, Missing) for answer in await ask(one, 10))
        assert isinstance(await one.get(), Missing)
        source.may_answer.set()
        await anyio.wait_all_tasks_blocked()
        assert await one.get() == 1  # one reading, that came late
        tasks.cancel_scope.cancel()


async def test_a_reading_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "READ_WITHIN_S", 0.05)
    source = Source()
    source.may_answer = anyio.Event()
    one = Cached(source.read, keep_s=0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        assert isinstance(await one.get(), Missing)
        source.may_answer.set()
        assert await one.get() == 2
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (SchemaError("run migrate\nand more"), "run migrate"),
        (OrchestratorError("away"), "away"),
        (RuntimeError("a mistake of ours, with a secret"), "RuntimeError"),
    ],
    ids=["schema", "away", "mistake"],
)
async def test_trouble_is_an_answer_too_and_ends_nothing(trouble: Exception, said: str) -> None:
    source = Source()
    source.trouble = trouble
    one = Cached(source.read, keep_s=0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one.run)
        missing = await one.get()
        assert isinstance(missing, Missing)
        assert missing == said
        source.trouble = None
        assert await one.get() == 2
        tasks.cancel_scope.cancel()
