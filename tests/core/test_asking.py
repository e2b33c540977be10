"""What a request proves: by whom it was asked for certain, and what is only told."""

import pytest

from orchestrator.core.asking import Asker, facts_of
from orchestrator.core.caps import Caps, Recovery
from orchestrator.core.fact import Event
from orchestrator.core.turn import Caller
from tests.core.builders import NOW, caps

SAME_NAME, FIND, EVICT = map(caps, (Recovery.SAME_NAME, Recovery.FIND, Recovery.EVICT))

KNOWN = Caller(
    vendor_task_id="h1",
    ended_at=None,
    incarnation=1,
    retired=0,
    is_wanted=True,
    is_confirmed=False,
)


def asker(handle: str | None, caller: Caller | None = KNOWN) -> Asker:
    return Asker(
        agent_id="orc1", room_id="room", user_id="human", handle=handle, caller=caller, at=NOW
    )


@pytest.mark.parametrize(
    ("vendor", "one", "told"),
    [
        # A name of ours is the handle, whatever is told.
        (SAME_NAME, asker(None, None), [("orc1", "orc1")]),
        (SAME_NAME, asker(None), [("orc1", "orc1")]),
        # What the ledger knows is certain.
        (FIND, asker("h1"), [("orc1", "h1")]),
        (EVICT, asker(None), [("orc1", "h1")]),
        (FIND, asker(None, None), [("orc1", None)]),
        # Whose another handle is the vendor is asked, where it can say.
        (FIND, asker("h2"), [(None, "h2"), ("orc1", "h1")]),
        (FIND, asker("h2", None), [(None, "h2"), ("orc1", None)]),
        # Where it cannot, it is hearsay, as from a callback.
        (EVICT, asker("h2"), [("orc1", "h2")]),
        (EVICT, asker("h2", None), [("orc1", "h2")]),
    ],
)
def test_what_is_told_of_who_asks(
    vendor: Caps, one: Asker, told: list[tuple[str | None, str | None]]
) -> None:
    facts = facts_of(one, vendor)
    assert [(fact.name, fact.vendor_task_id) for fact in facts] == told
    for fact in facts:
        assert (fact.event, fact.event_at, fact.room_id) == (Event.ALIVE, NOW, "room")
        assert fact.is_asking
        assert not fact.is_signed
    assert len({fact.key for fact in facts}) == len(facts)
