"""Users who change their minds: each row's user edits it at random, and the diary remembers.

Rule 1: every edit is idempotent SQL (see `client`): what is random is drawn before it is written.
Rule 2: a user knows its row only by what it wrote itself, never by what a daemon made of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum, auto
from random import Random
from typing import Final

import anyio

from orchestrator.clock import utc_now
from tests.chaos.client import Client
from tests.chaos.diary import Diary, Wish
from tests.chaos.owners import Owners
from tests.chaos.walkie import Walkie
from tests.daemon.application import delete_task, quoted, update_task
from tests.daemon.customers import ZEGO, Customer
from tests.daemon.running import as_json, task
from tests.daemon.talk import WALKIE

PAUSE_S: Final = 0.12
"""Between two edits at most."""
TALKS: Final = 0.3
"""Share of what users do that is pressing buttons."""
POLICIES: Final = ("never", "never", "on_failure", "always")
DEADLINES_S: Final = (0.0, 10.0)


class Mood(Enum):
    """What a user thinks of its row."""

    ABSENT = auto()
    WANTED = auto()
    DOOMED = auto()
    """Still wanted, but a deadline is set or its owner has died."""
    STOPPED = auto()


@dataclass
class Place:
    """One row as its user knows it."""

    id: str
    customer: Customer
    mood: Mood = Mood.ABSENT
    policy: str = "never"
    owner: str | None = None
    stop_at: datetime | None = None
    is_other_spec: bool = False


@dataclass(frozen=True)
class Edit:
    """What is written, and what the row wants after it."""

    what: str
    sql: str
    renews: bool


@dataclass
class Users:
    """All users, one edit after the other."""

    lots: Random
    client: Client
    diary: Diary
    owners: Owners
    walkie: Walkie
    places: Sequence[Place]
    calm: anyio.Event = field(default_factory=anyio.Event)

    async def move_in(self) -> None:
        """Let every user ask for an agent."""
        for place in self.places:
            await self._commit(place, self._insert(place))

    async def edit(self) -> None:
        """Edit until it is calm. The edit that is on its way then is finished."""
        while not self.calm.is_set():
            await anyio.sleep(self.lots.uniform(0, PAUSE_S))
            if self.lots.random() < TALKS:
                await self._talk(self.lots.choice(self._talkers))
            else:
                place = self.lots.choice(self.places)
                await self._commit(place, self._draw(place))
            await self.walkie.release_due()

    @property
    def _talkers(self) -> list[Place]:
        return [place for place in self.places if place.customer is WALKIE]

    async def _talk(self, place: Place) -> None:
        if place.mood is not Mood.ABSENT:
            await self.walkie.press(place.id)

    async def _commit(self, place: Place, edit: Edit) -> None:
        told = await self.client.write(edit.sql)
        self.diary.note(
            Wish(
                task_id=place.id,
                what=edit.what,
                begun_at=told.begun_at,
                committed_at=told.committed_at,
                wanted=place.mood in {Mood.WANTED, Mood.DOOMED},
                renews=edit.renews,
                stop_at=place.stop_at,
                owner=place.owner,
                policy=place.policy,
            )
        )

    def _draw(self, place: Place) -> Edit:
        if place.mood is Mood.WANTED and place.owner in self.owners.dead:
            place.mood = Mood.DOOMED
        edits = _EDITS[place.mood]
        return self.lots.choices([*edits], weights=[*edits.values()])[0](self, place)

    # --- edits: each changes what the user knows, and returns what makes it true ---

    def _insert(self, place: Place) -> Edit:
        place.mood, place.stop_at, place.is_other_spec = Mood.WANTED, None, False
        place.policy = self.lots.choice(POLICIES)
        place.owner = self.lots.choice([None, None, *self.owners.living])
        row = task(
            place.customer,
            place.id,
            restart_policy=quoted(place.policy),
            owner=_sql(place.owner),
        )
        return Edit("insert", f"{row} ON CONFLICT (id) DO NOTHING", renews=True)

    def _delete(self, place: Place) -> Edit:
        place.mood = Mood.ABSENT
        self.walkie.forget(place.id)
        return Edit("delete", delete_task(place.id), renews=True)

    def _stop(self, place: Place) -> Edit:
        place.mood = Mood.STOPPED
        return Edit("stop", update_task(place.id, desired_state="'stopped'"), renews=True)

    def _run(self, place: Place) -> Edit:
        wish = {"desired_state": "'running'", **self._free(place)}
        return Edit("run", update_task(place.id, **wish), renews=True)

    def _restart(self, place: Place) -> Edit:
        wish = {"restart_token": quoted(str(self.lots.random())), **self._free(place)}
        return Edit("restart", update_task(place.id, **wish), renews=True)

    def _free(self, place: Place) -> Mapping[str, str]:
        """Let a row want to run without an end."""
        place.mood, place.stop_at, place.owner = Mood.WANTED, None, None
        return {"stop_at": "NULL", "owner": "NULL"}

    def _change_spec(self, place: Place) -> Edit:
        place.is_other_spec = not place.is_other_spec
        spec = place.customer.other_spec if place.is_other_spec else place.customer.spec
        return Edit("spec", update_task(place.id, spec=as_json(spec)), renews=False)

    def _set_deadline(self, place: Place) -> Edit:
        place.mood = Mood.DOOMED
        place.stop_at = utc_now() + timedelta(seconds=self.lots.uniform(*DEADLINES_S))
        at = quoted(place.stop_at.isoformat())
        return Edit("stop_at", update_task(place.id, stop_at=at), renews=False)

    def _label(self, place: Place) -> Edit:
        labels = as_json({"lot": self.lots.random()})
        return Edit("labels", update_task(place.id, labels=labels), renews=False)


Draw = Callable[[Users, Place], Edit]

_EDITS: Final[Mapping[Mood, Mapping[Draw, int]]] = {
    Mood.ABSENT: {Users._insert: 1},
    Mood.STOPPED: {Users._run: 3, Users._delete: 1, Users._label: 1},
    Mood.DOOMED: {Users._stop: 1, Users._delete: 1, Users._restart: 2, Users._label: 2},
    Mood.WANTED: {
        Users._stop: 4,
        Users._delete: 2,
        Users._restart: 2,
        Users._change_spec: 1,
        Users._set_deadline: 2,
        Users._label: 3,
    },
}
"""What a user may do next, and how likely that is."""


def make_places(customers: Mapping[Customer, int]) -> list[Place]:
    """Return rows that nobody has inserted yet."""
    return [
        Place(f"{customer.name}-{number}", WALKIE if customer is ZEGO else customer)
        for customer, count in customers.items()
        for number in range(count)
    ]


def _sql(text: str | None) -> str:
    return "NULL" if text is None else quoted(text)
