"""What the simulated vendors post is heard as what happened there."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import EndReason
from orchestrator.providers.base import Post, Provider
from orchestrator.providers.callbacks import OTHER_APP, WRONG_SIGNATURE
from orchestrator.providers.tencent import Tencent
from orchestrator.providers.volcengine import Volcengine
from orchestrator.providers.zego import Zego
from orchestrator.simulator.keys import DEMO, Keys, TencentKeys, VolcengineKeys, ZegoKeys
from orchestrator.simulator.notices import Notice, write_notices
from orchestrator.simulator.world import Agent, Happened, Idleness, Room, RoomKey, Vendor, Why

TOLD: dict[Why, EndReason | None] = {
    Why.REQUESTED: None,
    Why.IDLE: EndReason.IDLE,
    Why.KICKED: EndReason.KICKED,
    Why.EVICTED: EndReason.KICKED,
    Why.STREAM_CLASH: EndReason.VENDOR_FAULT,
    Why.ROOM_DISMISSED: EndReason.ROOM_CLOSED,
    Why.FAULT: EndReason.VENDOR_FAULT,
}
ENDS = {"volcengine": dict.fromkeys(Why), "tencent": TOLD, "zego": TOLD}
IDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=32)
MOMENTS = st.timedeltas(timedelta(0), timedelta(days=29_000)).map(
    lambda since: datetime(2020, 1, 1, tzinfo=UTC) + since
)
VENDORS = pytest.mark.parametrize("keys", DEMO, ids=lambda keys: keys.account)


def provider(keys: Keys) -> Provider:
    match keys:
        case VolcengineKeys():
            return Volcengine(
                app_id=keys.app_id,
                access_key_id=keys.access_key_id,
                secret_access_key=keys.secret_access_key,
                callback_secret=keys.callback_secret,
            )
        case TencentKeys():
            return Tencent(
                sdk_app_id=keys.sdk_app_id,
                secret_id=keys.secret_id,
                secret_key=keys.secret_key,
                usersig_key=keys.usersig_key,
                region="ap-singapore",
                callback_key=keys.callback_secret,
            )
        case ZegoKeys():
            return Zego(
                app_id=keys.app_id,
                server_secret=keys.server_secret,
                callback_secret=keys.callback_secret,
            )


def other_app(keys: Keys) -> Keys:
    match keys:
        case VolcengineKeys():
            return replace(keys, app_id=keys.app_id[::-1])
        case TencentKeys():
            return replace(keys, sdk_app_id=keys.sdk_app_id + 1)
        case ZegoKeys():
            return replace(keys, app_id=keys.app_id + 1)


def agent(keys: Keys, why: Why | None = None, handle: str = "h1", room: str = "r1") -> Agent:
    app_id = str(keys.sdk_app_id if isinstance(keys, TencentKeys) else keys.app_id)
    return Agent(
        number=0,
        account=keys.account,
        room=Room(RoomKey(Vendor(keys.account), app_id, room, "string")),
        user_id="user1",
        agent_user_id="agent1",
        handle=handle,
        idleness=Idleness.USER_ABSENT,
        idle_limit=timedelta(seconds=30),
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        why=why,
    )


def as_post(notice: Notice, received_at: datetime) -> Post:
    headers = {name.lower(): value for name, value in notice.headers.items()}
    return Post(headers=headers, body=notice.body, received_at=received_at)


@VENDORS
@given(
    why=st.none() | st.sampled_from(Why),
    at=MOMENTS,
    delay_ms=st.integers(0, 60_000),
    handle=IDS,
    room=IDS,
    seed=st.integers(0, 2**32),
)
def test_what_happens_is_heard(
    keys: Keys, why: Why | None, at: datetime, delay_ms: int, handle: str, room: str, seed: int
) -> None:
    happened = Happened.JOINED if why is None else Happened.ENDED
    notices = write_notices(keys, happened, agent(keys, why, handle, room), at, random.Random(seed))
    received_at = at + timedelta(milliseconds=delay_ms)
    heard = [provider(keys).hear(as_post(notice, received_at)) for notice in notices]
    first = heard[0]
    assert isinstance(first, tuple)
    (fact,) = first
    assert fact.event is (Event.STARTED if why is None else Event.ENDED)
    assert fact.end_reason == (None if why is None else ENDS[keys.account][why])
    assert (fact.vendor_task_id, fact.room_id) == (handle, room)
    # The vendors count milliseconds.
    assert timedelta(0) <= at - fact.event_at < timedelta(milliseconds=2)
    for later in heard[1:]:
        assert isinstance(later, tuple)
        assert [each.event for each in later] == [Event.ALIVE]


@VENDORS
def test_a_repeated_callback_is_one_fact(keys: Keys) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    facts: list[Fact] = []
    for happened, why in ((Happened.JOINED, None), (Happened.ENDED, Why.IDLE)):
        for notice in write_notices(keys, happened, agent(keys, why), at, random.Random(why or "")):
            for late_s in (1, 30):
                received_at = at + timedelta(seconds=late_s)
                heard = provider(keys).hear(as_post(notice, received_at))
                assert isinstance(heard, tuple)
                facts.extend(heard)
    by_key = {fact.key: fact for fact in facts}
    assert facts == [by_key[fact.key] for fact in facts]
    assert len(by_key) == len(facts) // 2


@VENDORS
def test_whose_it_is_depends_on_the_secret_and_the_app(keys: Keys) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    notice = write_notices(keys, Happened.JOINED, agent(keys), at, random.Random(1))[0]
    post = as_post(notice, at)
    stranger = replace(keys, callback_secret="another")
    assert provider(stranger).hear(post) == WRONG_SIGNATURE
    assert provider(other_app(keys)).hear(post) == OTHER_APP


@VENDORS
def test_what_is_evidence_is_what_is_signed(keys: Keys) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    notices = write_notices(keys, Happened.ENDED, agent(keys, Why.IDLE), at, random.Random(1))
    heard = provider(keys).hear(as_post(notices[0], at))
    assert isinstance(heard, tuple)
    assert [fact.is_signed for fact in heard] == [keys.account != "zego"]
