"""How many calls a second the vendors of a run take: fewer than they document.

A few dozen rows would never come near the documented limits. With these everybody waits for a slot
now and then, and a limiter that is wrong is found out. The daemons are configured with the same.
"""

from collections.abc import Mapping
from typing import Final, get_args

from orchestrator.settings import TencentAction, VolcengineAction, ZegoAction
from tests.daemon.customers import TENCENT, VOLCENGINE, VOLCENGINE_FIRST, ZEGO

VOICE_CHAT: Final = 8
ROOM_LOOKS: Final = 12
CONVERSATION: Final = 8
AI_AGENT: Final = 5

SWITCHES: Final = {
    "volcengine_qps": VOICE_CHAT,
    "volcengine_lookup_qps": ROOM_LOOKS,
    "tencent_qps": CONVERSATION,
    "zego_qps": AI_AGENT,
}
"""The same for the simulated vendors."""

_VOLCENGINE: Final = {
    **dict.fromkeys(get_args(VolcengineAction), VOICE_CHAT),
    "GetRoomOnlineUsers": ROOM_LOOKS,
}
PER_SECOND: Final[Mapping[str, Mapping[str, int]]] = {
    VOLCENGINE.name: _VOLCENGINE,
    VOLCENGINE_FIRST.name: _VOLCENGINE,
    TENCENT.name: dict.fromkeys(get_args(TencentAction), CONVERSATION),
    ZEGO.name: {
        **dict.fromkeys(get_args(ZegoAction), AI_AGENT),
        # Of the RTC server API, and as documented.
        "DescribeUserList": 200,
        "KickoutUser": 50,
    },
}
"""By account and action."""
