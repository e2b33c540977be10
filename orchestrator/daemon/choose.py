"""Which rows a pass claims, and how many slots it draws for them: plain functions of what was seen.

Rule 1: to lock and read a row costs as much as to call about it, so a row that would find no place
is left out.
Rule 2: places are counted for each account and class, so that a vendor that hangs holds up no
other account.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

from orchestrator.core.model import Verb, WorkClass
from orchestrator.daemon.book import Book
from orchestrator.daemon.claim import Place, Room, Tickets, Wanted
from orchestrator.daemon.look import Seen
from orchestrator.store.accounts import Standing
from orchestrator.store.queue import Candidate, Queue

IN_FLIGHT: Final[Mapping[WorkClass, int]] = MappingProxyType(
    {
        WorkClass.STOP: 64,
        WorkClass.LISTENING: 64,
        WorkClass.START: 64,
        WorkClass.OBSERVE: 32,
    }
)
"""Calls of each class and account at a time; none uses what is kept for another."""


def class_of(verb: Verb) -> WorkClass:
    """Return the class whose places a call of this kind most likely takes."""
    match verb:
        case Verb.START | Verb.UPDATE:
            return WorkClass.START
        case Verb.POLL:
            return WorkClass.OBSERVE
        case Verb.STOP | Verb.FIND | Verb.KICK:
            return WorkClass.STOP


def free_places(names: Sequence[str], in_flight: Mapping[Place, int]) -> Room:
    """Return how many calls more each account may have in flight, by class."""
    places = [(name, each) for name in names for each in WorkClass]
    return {place: IN_FLIGHT[place[1]] - in_flight.get(place, 0) for place in places}


def full_accounts(room: Room, crowded: Collection[Place]) -> dict[WorkClass, frozenset[str]]:
    """Return, for each class, the accounts that `admit` would let nothing in of.

    `crowded`: the places of which more was wanted than they had.
    """
    full = [
        place
        for place, free in room.items()
        if free <= 0 or (place in crowded and free < _quarter(place))
    ]
    return {each: frozenset(name for name, of in full if of is each) for each in WorkClass}


def _quarter(place: Place) -> int:
    return IN_FLIGHT[place[1]] // 4


def find_crowded(wishes: Mapping[tuple[str, Verb], int], room: Room) -> set[Place]:
    """Return the places of which more is wanted than they have."""
    wanted: Counter[Place] = Counter()
    for (name, verb), count in wishes.items():
        wanted[name, class_of(verb)] += count
    return {place for place, count in wanted.items() if count > room.get(place, 0)}


def count_wishes(seen: Seen, book: Book) -> Counter[tuple[str, Verb]]:
    """Return how many calls of each account and kind could be made now, slots and places apart."""
    wishes: Counter[tuple[str, Verb]] = Counter()
    for one in seen.candidates:
        if one.account is not None and one.account in book.runtimes:
            wishes[one.account, one.verb] += 1
    for queue, ids in seen.parked.items():
        wishes[queue.account, queue.verb] += count_passable(queue, seen, book, len(ids))
    return wishes


def choose(seen: Seen, tickets: Tickets, room: Room, book: Book, most: int) -> Wanted:
    """Choose up to `most` rows to claim: what cannot wait, then the parked that got a slot."""
    ids = [one.task_id for one in admit(seen.candidates, room)]
    for queue, parked in seen.parked.items():
        free = room.get((queue.account, class_of(queue.verb)), 0)
        passable = min(max(0, free), count_passable(queue, seen, book, len(parked)))
        drawn = tickets.get((queue.account, queue.verb))
        ids += parked[: passable if drawn is None else min(passable, len(drawn))]
    return Wanted(
        ids=list(dict.fromkeys(ids))[:most],
        without_status=[one.task_id for one in seen.candidates if one.account is None],
    )


def admit(candidates: Sequence[Candidate], room: Room) -> Iterator[Candidate]:
    """Yield as many candidates of each account and class as there are places for.

    While more want in than there are places, nobody is let in until a quarter of them is free, and
    then all are filled with one claim instead of many small ones. A row of an account that no
    daemon has takes no place: it is only told so.
    """
    known = [one for one in candidates if one.account is not None]
    wishes = Counter((one.account, class_of(one.verb)) for one in known)
    places = {
        place: 0 if wishes[place] > free < _quarter(place) else free for place, free in room.items()
    }
    for one in known:
        place = (one.account or "", class_of(one.verb))
        if places.get(place, 1) > 0:
            yield one
        if place in places:
            places[place] -= 1


def count_passable(queue: Queue, seen: Seen, book: Book, most: int) -> int:
    """Return how many rows of a queue, up to `most`, could be called about now, slots apart."""
    standing = seen.standings.get(queue.account)
    if queue.account not in book.runtimes:
        return 0
    if standing is None:
        return most
    if queue.verb is not Verb.START:
        return 0 if standing.frozen else most
    return _count_startable(queue.account, standing, book, seen.now, most)


def _count_startable(name: str, standing: Standing, book: Book, now: datetime, most: int) -> int:
    account = book.account(name, standing, None)
    if account.frozen or account.paused:
        return 0
    for until in (account.denied_until, account.circuit_open_until):
        if until is not None:
            return 0 if until > now else min(1, most)
    return most
