"""Who talks to a model in measurements: opens turns at an address, and notes how late words are.

The first word's delay is without the time that the model thought: from the request to the model's
reading of it, and from the model's writing of the word to our reading of that.
"""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import anyio

from orchestrator.clock import boot_ns

HISTORY: Final = [
    {"role": "system", "content": "You are a friendly assistant. Answer in short sentences. " * 8},
    *(
        {"role": role, "content": f"This is what was said in round {number} of this talk. " * 4}
        for number in range(10)
        for role in ("user", "assistant")
    ),
    {"role": "user", "content": "What do you think of that?"},
]
"""A talk of ten rounds, some 5 KB."""
START_S: Final = 60.0
_WORD: Final = re.compile(rb'"content":"(\d+)/(\d+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a turn is asked for."""

    url: str
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How an answer is spoken: the model's keys."""

    words: int
    per_s: float
    think_s: float
    hold_s: float = 0.0


@dataclass(slots=True)
class Heard:
    """How late words came, milliseconds."""

    first_ms: list[float] = field(default_factory=list)
    later_ms: list[float] = field(default_factory=list)

    def add(self, other: "Heard") -> None:
        """Take in what was heard at another time."""
        self.first_ms += other.first_ms
        self.later_ms += other.later_ms


@asynccontextmanager
async def open_client() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a client that waits for no connection."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=None)
    ) as client:
        yield client


async def talk(
    client: aiohttp.ClientSession, addresses: Sequence[Address], manner: Manner, turns_each: int
) -> Heard:
    """Hold talks at all addresses at once, this many turns at each, one after the other."""
    heard = Heard()

    async def hold(address: Address, begin_in_s: float) -> None:
        await anyio.sleep(begin_in_s)
        for _ in range(turns_each):
            await _listen(client, address, manner, heard)

    lasts_s = manner.think_s + manner.words / manner.per_s
    async with anyio.create_task_group() as speakers:
        for number, address in enumerate(addresses):
            # Spread over the time of one turn, so that turns begin as steadily as they go on.
            speakers.start_soon(hold, address, lasts_s * number / len(addresses))
    return heard


@asynccontextmanager
async def open_turns(
    client: aiohttp.ClientSession, addresses: Sequence[Address], hold_s: float
) -> AsyncIterator[None]:
    """Hold a turn open at each address, whose first word has been heard, while this is open."""
    manner = Manner(words=1, per_s=1, think_s=0, hold_s=hold_s)
    async with anyio.create_task_group() as holding:
        with anyio.fail_after(START_S):
            for address in addresses:
                await holding.start(_hold, client, address, manner)
        yield
        holding.cancel_scope.cancel()


async def _hold(
    client: aiohttp.ClientSession,
    address: Address,
    manner: Manner,
    *,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    async with _ask(client, address, manner) as answer:
        async for _asked_ns, _said_ns, _read_ns in _words(answer):
            task_status.started()


async def _listen(
    client: aiohttp.ClientSession, address: Address, manner: Manner, heard: Heard
) -> None:
    """Hold one turn. Raises RuntimeError if a word is missing."""
    began_ns, count = boot_ns(), 0
    async with _ask(client, address, manner) as answer:
        async for asked_ns, said_ns, read_ns in _words(answer):
            if count:
                heard.later_ms.append((read_ns - said_ns) / 1e6)
            else:
                heard.first_ms.append((asked_ns - began_ns + read_ns - said_ns) / 1e6)
            count += 1
    if count != manner.words:
        raise RuntimeError(f"{count} of {manner.words} words were heard")


@asynccontextmanager
async def _ask(
    client: aiohttp.ClientSession, address: Address, manner: Manner
) -> AsyncIterator[aiohttp.ClientResponse]:
    body: Mapping[str, Any] = {
        "messages": HISTORY,
        "stream": True,
        "words": manner.words,
        "per_s": manner.per_s,
        "think_s": manner.think_s,
        "hold_s": manner.hold_s,
    }
    headers = {"Authorization": f"Bearer {address.token}"}
    async with client.post(address.url, json=body, headers=headers) as answer:
        answer.raise_for_status()
        yield answer


async def _words(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[int, int, int]]:
    """Yield of each word when its request was read, when it was said, and when it was heard."""
    rest = b""
    async for data in answer.content.iter_any():
        read_ns = boot_ns()
        rest += data
        end = 0
        for found in _WORD.finditer(rest):
            yield int(found[1]), int(found[2]), read_ns
            end = found.end()
        rest = rest[end:]
