"""Agents that somebody else started on the same vendor accounts: no daemon may ever touch them.

They are started with the accounts' own keys, without the daemon's adapters: some in a room of their
own, some beside an agent of the daemons'.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from orchestrator.clock import utc_now
from orchestrator.providers.signing import (
    TC3Call,
    TC3Keys,
    Unsigned,
    V4Keys,
    sign_tc3,
    sign_v4,
    zego_query,
)
from orchestrator.providers.tokens import make_user_sig
from orchestrator.simulator.keys import TencentKeys, VolcengineKeys, ZegoKeys
from tests.daemon.customers import Customer

NOBODY: Final = "somebody-else"
IDLE_S: Final = 30


class NotTakenError(RuntimeError):
    """A vendor did not take a stranger's start."""


@dataclass(frozen=True)
class Stranger:
    """One start of somebody else's."""

    customer: Customer
    room_id: str
    name: str
    """The agent's user id, its TaskId, SessionId or stream."""


@dataclass(frozen=True)
class _Post:
    query: str
    headers: Mapping[str, str]
    body: bytes


async def start_strangers(url: str, strangers: Sequence[Stranger]) -> None:
    """Start agents beside the daemons. Raises NotTakenError with a vendor's answer."""
    async with aiohttp.ClientSession() as client:
        for stranger in strangers:
            post = _written(stranger, urlsplit(url).netloc)
            where = f"{url}/?{post.query}"
            async with client.post(where, data=post.body, headers=post.headers) as answer:
                told = await answer.text()
                if answer.status != 200 or '"Error"' in told:
                    raise NotTakenError(told)


def _written(stranger: Stranger, host: str) -> _Post:
    """Return the vendor's own start, signed."""
    match stranger.customer.keys:
        case VolcengineKeys() as keys:
            return _volcengine(stranger, keys, host)
        case TencentKeys() as keys:
            return _tencent(stranger, keys, host)
        case ZegoKeys() as keys:
            return _zego(stranger, keys)


def _volcengine(stranger: Stranger, keys: VolcengineKeys, host: str) -> _Post:
    version = stranger.customer.settings["api_version"]
    body = _as_bytes(
        {
            "AppId": keys.app_id,
            "RoomId": stranger.room_id,
            "TaskId": stranger.name,
            **stranger.customer.spec,
            "AgentConfig": {
                "TargetUserId": [NOBODY],
                "UserId": stranger.name,
                "IdleTimeout": IDLE_S,
            },
        }
    )
    query = {"Action": stranger.customer.start, "Version": version}
    unsigned = Unsigned(
        method="POST",
        host=host,
        query=query,
        headers={"Content-Type": "application/json"},
        body=body,
    )
    signing = V4Keys(access_key_id=keys.access_key_id, secret_access_key=keys.secret_access_key)
    headers = sign_v4(unsigned, keys=signing, at=utc_now())
    return _Post("&".join(f"{name}={value}" for name, value in query.items()), headers, body)


def _tencent(stranger: Stranger, keys: TencentKeys, host: str) -> _Post:
    now = utc_now()
    user_sig = make_user_sig(
        sdk_app_id=keys.sdk_app_id,
        key=keys.usersig_key,
        user_id=stranger.name,
        at=now,
        life=timedelta(hours=1),
    )
    body = _as_bytes(
        {
            "SdkAppId": keys.sdk_app_id,
            "RoomId": stranger.room_id,
            "RoomIdType": 1,
            "SessionId": stranger.name,
            "AgentConfig": {
                "UserId": stranger.name,
                "UserSig": user_sig,
                "TargetUserId": NOBODY,
                "MaxIdleTime": IDLE_S,
            },
            "LLMConfig": "{}",
            "TTSConfig": "{}",
        }
    )
    call = TC3Call(
        host=host,
        action=stranger.customer.start,
        version="2019-07-22",
        region=stranger.customer.settings["region"],
        body=body,
    )
    signing = TC3Keys(secret_id=keys.secret_id, secret_key=keys.secret_key)
    return _Post("", sign_tc3(call, keys=signing, at=now), body)


def _zego(stranger: Stranger, keys: ZegoKeys) -> _Post:
    query = zego_query(
        app_id=keys.app_id,
        server_secret=keys.server_secret,
        nonce="00112233445566aa",
        at=utc_now(),
        action=stranger.customer.start,
    )
    body = {
        "AgentId": stranger.customer.spec["AgentId"],
        "UserId": NOBODY,
        "RTC": {
            "RoomId": stranger.room_id,
            "AgentStreamId": f"{stranger.name}-stream",
            "AgentUserId": stranger.name,
            "UserStreamId": f"{NOBODY}-stream",
        },
        "AdvancedConfig": {"MaxIdleTime": IDLE_S},
    }
    return _Post(query, {}, _as_bytes(body))


def _as_bytes(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode()
