"""What each vendor posts to its customer when an agent joins or ends: the bytes, signed.

Sources: Volcengine 6348/69820 and 1928198 (message notification, VoiceChat event); Tencent 68331
(AI events 901, 909 and 902); ZEGO callbacks/receiving-callback. No I/O.
"""

import json
import random
from dataclasses import dataclass
from datetime import datetime

from orchestrator.providers.signing import (
    tencent_callback_sign,
    volcengine_notification_signature,
    zego_callback_signature,
)
from orchestrator.simulator.keys import Keys, TencentKeys, VolcengineKeys, ZegoKeys
from orchestrator.simulator.world import Agent, Happened, Why

VOLCENGINE_RETRIES_S = (1, 1)
"""Three times in all; how far apart is not documented."""
TENCENT_RETRIES_S = (0, 10, 10, 10, 10, 10)
"""At once, then every 10 s until the message is a minute old."""
ZEGO_RETRIES_S = (2, 4, 8, 16, 32)

LEAVE_CODES = {
    Why.REQUESTED: 0,
    Why.KICKED: 1,
    Why.ROOM_DISMISSED: 2,
    Why.EVICTED: 3,
    Why.STREAM_CLASH: 98,
    Why.FAULT: 98,
    Why.IDLE: 99,
}
"""Tencent's LeaveCode. For a take-over no code is documented; 3 is "kicked by the server"."""

DELETED_CODES = {
    Why.REQUESTED: 0,
    Why.FAULT: 1201,
    Why.IDLE: 1202,
    Why.KICKED: 1203,
    Why.EVICTED: 1203,
    Why.ROOM_DISMISSED: 1205,
    Why.STREAM_CLASH: 1206,
}
"""Code of ZEGO's AgentInstanceDeleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One callback, complete to the byte. A retry repeats it as it is."""

    account: str
    event: str
    body: bytes
    headers: dict[str, str]
    retries_s: tuple[int, ...]


def write_notices(
    keys: Keys, happened: Happened, agent: Agent, at: datetime, lots: random.Random
) -> list[Notice]:
    """Return what the vendor posts about this, in its order.

    Without a callback secret nothing is signed, and so nothing posted.
    """
    if keys.callback_secret is None:
        return []
    match keys:
        case VolcengineKeys():
            return [_volcengine(keys.callback_secret, happened, agent, at, lots)]
        case TencentKeys():
            return _tencent(keys.callback_secret, happened, agent, at)
        case ZegoKeys():
            return [_zego(keys.callback_secret, happened, agent, at, lots)]


def _volcengine(
    secret: str, happened: Happened, agent: Agent, at: datetime, lots: random.Random
) -> Notice:
    stage = "taskStart" if happened is Happened.JOINED else "taskStop"
    data = {
        "AppId": agent.app_id,
        "BusinessId": "",
        "RoomId": agent.room.key.room_id,
        "TaskId": agent.handle,
        "UserID": agent.user_id,
        "RoundID": 0,
        "EventTime": _milliseconds(at),
        "EventType": 0,
        "RunStage": stage,
    }
    body = {
        "EventType": "VoiceChat",
        "EventData": json.dumps(data),
        "EventTime": at.isoformat(),
        "EventId": f"{lots.getrandbits(128):032x}",
        "AppId": agent.app_id,
        "Version": "2020-12-01",
        "Nonce": f"{lots.randrange(10_000):04d}",
    }
    signature = volcengine_notification_signature(body, secret_key=secret)
    return Notice(
        account=agent.account,
        event=stage,
        body=json.dumps(body | {"Signature": signature}).encode(),
        headers={"Content-Type": "application/json"},
        retries_s=VOLCENGINE_RETRIES_S,
    )


def _tencent(secret: str, happened: Happened, agent: Agent, at: datetime) -> list[Notice]:
    if happened is Happened.JOINED:
        return [
            _tencent_event(secret, agent, at, 901, {"Status": 0}),
            _tencent_event(secret, agent, at, 909, {"Status": "session_ready"}),
        ]
    code = LEAVE_CODES[agent.why or Why.FAULT]
    return [_tencent_event(secret, agent, at, 902, {"LeaveCode": code})]


def _tencent_event(
    secret: str, agent: Agent, at: datetime, event: int, payload: dict[str, object]
) -> Notice:
    envelope = {
        "EventGroupId": 9,
        "EventType": event,
        "CallbackTs": _milliseconds(at),
        "EventInfo": {
            "EventMsTs": _milliseconds(at),
            "TaskId": agent.handle,
            "RoomId": agent.room.key.room_id,
            "RoomIdType": 1 if agent.room.key.kind == "string" else 0,
            "Payload": payload,
        },
    }
    # The vendor's bodies hold tabs and line ends: whoever parses before verifying is found out.
    body = json.dumps(envelope, indent="\t", separators=(",", ":\t")).encode()
    return Notice(
        account=agent.account,
        event=str(event),
        body=body,
        headers={
            "Content-Type": "application/json",
            "Sign": tencent_callback_sign(body, key=secret),
            "SdkAppId": agent.app_id,
        },
        retries_s=TENCENT_RETRIES_S,
    )


def _zego(
    secret: str, happened: Happened, agent: Agent, at: datetime, lots: random.Random
) -> Notice:
    now_ms, nonce = _milliseconds(at), str(lots.getrandbits(62))
    if happened is Happened.JOINED:
        event, data = "AgentInstanceCreated", {"CreatedTimestamp": now_ms}
    else:
        event = "AgentInstanceDeleted"
        data = {"Code": DELETED_CODES[agent.why or Why.FAULT], "DeletedTimestamp": now_ms}
    envelope = {
        "AppId": int(agent.app_id),
        "Event": event,
        "Nonce": nonce,
        "Timestamp": now_ms,
        "Signature": zego_callback_signature(
            callback_secret=secret, timestamp=str(now_ms), nonce=nonce
        ),
        "AgentInstanceId": agent.handle,
        "AgentUserId": agent.agent_user_id,
        "RoomId": agent.room.key.room_id,
        # Ordered, with gaps, and beyond what a float can hold.
        "Sequence": int(at.timestamp() * 1_000_000) * 1000,
        "Data": data,
    }
    return Notice(
        account=agent.account,
        event=event,
        body=json.dumps(envelope).encode(),
        headers={"Content-Type": "application/json"},
        retries_s=ZEGO_RETRIES_S,
    )


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
