"""Users who talk by themselves: when, and what; no I/O."""

from datetime import UTC, datetime, timedelta

from orchestrator.simulator.chatter import Chatter
from orchestrator.simulator.questions import Utterance
from orchestrator.simulator.world import Agent, Idleness, Room, RoomKey, Vendor

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVERY = timedelta(seconds=10)


def agent(number: int, joined_at: datetime = NOON) -> Agent:
    return Agent(
        number=number,
        account="zego",
        room=Room(RoomKey(Vendor.ZEGO, "app", "room")),
        user_id="user",
        agent_user_id=f"agent{number}",
        handle=f"handle{number}",
        idleness=Idleness.USER_ABSENT,
        idle_limit=EVERY,
        started_at=joined_at,
        joined_at=joined_at,
    )


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def said(seed: int, number: int, rounds: int) -> list[Utterance]:
    chatter, speaker = Chatter(seed), agent(number)
    utterances = []
    for speaker.round in range(rounds):
        ((_, utterance),) = chatter.due([speaker], after(10 * (speaker.round + 1)), EVERY)
        utterances.append(utterance)
    return utterances


def test_each_user_speaks_at_the_pace_since_its_agent_joined() -> None:
    chatter, early, late = Chatter(0), agent(0), agent(1, after(5))
    due = {
        seconds: [a.number for a, _ in chatter.due([early, late], after(seconds), EVERY)]
        for seconds in (0, 9, 10, 14, 15, 19, 20, 26)
    }
    assert due == {0: [], 9: [], 10: [0], 14: [], 15: [1], 19: [], 20: [0], 26: [1]}


def test_who_was_away_begins_anew() -> None:
    chatter, speaker = Chatter(0), agent(0, after(0))
    assert chatter.due([speaker], after(10), EVERY)
    assert chatter.due([], after(11), EVERY) == []
    speaker.joined_at = after(11)
    assert chatter.due([speaker], after(20), EVERY) == []
    assert chatter.due([speaker], after(21), EVERY)


def test_the_same_seed_says_the_same_and_agents_differ() -> None:
    assert said(1, 0, 30) == said(1, 0, 30)
    assert said(1, 0, 30) != said(2, 0, 30)
    assert said(1, 0, 30) != said(1, 1, 30)


def test_some_are_interrupted_and_some_repeated_and_most_are_neither() -> None:
    utterances = said(7, 0, 300)
    interrupted = [u.interrupt_after for u in utterances if u.interrupt_after is not None]
    repeated = sum(u.repeat for u in utterances)
    assert set(interrupted) == {0, 1, 2, 3}
    assert 30 < len(interrupted) < 100
    assert 10 < repeated < 60
    assert len({u.text for u in utterances}) > 3
