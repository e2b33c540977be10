"""What the vendors post, and that its signature is the documented one."""

import hashlib
import hmac
import json
import random
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.simulator.keys import DEMO, Keys, TencentKeys
from orchestrator.simulator.notices import Notice, write_notices
from orchestrator.simulator.world import Agent, Happened, Idleness, Room, RoomKey, Vendor, Why

VOLCENGINE, TENCENT, ZEGO = DEMO
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def post(keys: Keys, happened: Happened, why: Why | None = None) -> list[Notice]:
    app_id = str(keys.sdk_app_id if isinstance(keys, TencentKeys) else keys.app_id)
    agent = Agent(
        number=0,
        account=keys.account,
        room=Room(RoomKey(Vendor(keys.account), app_id, "room1", "string")),
        user_id="user1",
        agent_user_id="agent1",
        handle="handle1",
        idleness=Idleness.USER_ABSENT,
        idle_limit=timedelta(seconds=30),
        started_at=AT,
        why=why,
    )
    return write_notices(keys, happened, agent, AT, random.Random(1))


@pytest.mark.parametrize(
    ("happened", "stage"), [(Happened.JOINED, "taskStart"), (Happened.ENDED, "taskStop")]
)
def test_volcengine_hashes_its_sorted_values_with_the_secret(
    happened: Happened, stage: str
) -> None:
    (notice,) = post(VOLCENGINE, happened, Why.IDLE)
    body = json.loads(notice.body)
    signature = body.pop("Signature")
    parts = sorted([*body.values(), VOLCENGINE.callback_secret])
    assert signature == hashlib.sha256("".join(parts).encode()).hexdigest()
    event = json.loads(body["EventData"])
    assert (event["TaskId"], event["RunStage"], event["EventType"]) == ("handle1", stage, 0)


@pytest.mark.parametrize(
    ("happened", "why", "events"),
    [
        (Happened.JOINED, None, [(901, {"Status": 0}), (909, {"Status": "session_ready"})]),
        (Happened.ENDED, Why.REQUESTED, [(902, {"LeaveCode": 0})]),
        (Happened.ENDED, Why.KICKED, [(902, {"LeaveCode": 1})]),
        (Happened.ENDED, Why.IDLE, [(902, {"LeaveCode": 99})]),
        (Happened.ENDED, Why.FAULT, [(902, {"LeaveCode": 98})]),
    ],
)
def test_tencent_signs_the_raw_body(happened: Happened, why: Why | None, events: Any) -> None:
    notices = post(TENCENT, happened, why)
    for notice in notices:
        digest = hmac.digest(str(TENCENT.callback_secret).encode(), notice.body, "sha256")
        assert notice.headers["Sign"] == b64encode(digest).decode()
        assert b"\t" in notice.body
    bodies = [json.loads(notice.body) for notice in notices]
    assert [(b["EventType"], b["EventInfo"]["Payload"]) for b in bodies] == events
    assert {b["EventInfo"]["TaskId"] for b in bodies} == {"handle1"}


@pytest.mark.parametrize(
    ("happened", "why", "event", "code"),
    [
        (Happened.JOINED, None, "AgentInstanceCreated", None),
        (Happened.ENDED, Why.REQUESTED, "AgentInstanceDeleted", 0),
        (Happened.ENDED, Why.IDLE, "AgentInstanceDeleted", 1202),
        (Happened.ENDED, Why.EVICTED, "AgentInstanceDeleted", 1203),
        (Happened.ENDED, Why.STREAM_CLASH, "AgentInstanceDeleted", 1206),
    ],
)
def test_zego_signs_time_and_nonce(
    happened: Happened, why: Why | None, event: str, code: int | None
) -> None:
    (notice,) = post(ZEGO, happened, why)
    body = json.loads(notice.body)
    text = "".join(sorted([str(ZEGO.callback_secret), str(body["Timestamp"]), body["Nonce"]]))
    assert body["Signature"] == hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    assert (body["Event"], body["AgentInstanceId"]) == (event, "handle1")
    assert body["Data"].get("Code") == code


@pytest.mark.parametrize("keys", DEMO, ids=lambda keys: keys.account)
def test_without_a_secret_nothing_is_posted(keys: Keys) -> None:
    assert post(replace(keys, callback_secret=None), Happened.JOINED) == []
