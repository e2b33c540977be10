"""What ZEGO's answers mean: the one table of its codes, and the reading of its envelope.

Rule 1: only `Code` counts, an integer. `Message` is free text, and HTTP 200 says nothing.
Rule 2: a code that means something else to one kind of call has a table of its own for that call,
laid over the common one.

Sources: return-codes under core_products/aiagent/en/server of ZEGOCLOUD/docs_all, the interaction
mode page for walkie-talkie codes, and article 9811 of docs.zegocloud.com for rooms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from orchestrator.core.outcome import (
    Denied,
    Done,
    Expired,
    Gone,
    Indefinite,
    NotSent,
    Outcome,
    Refused,
    Throttled,
)
from orchestrator.providers.base import Reply, Response
from orchestrator.providers.reading import (
    Verdict,
    at_capacity,
    printable,
    read_object,
    unreadable,
)

AGENT_EXISTS = 410001008
AGENT_NOT_FOUND = 410001009
TRANSIENT_CREATE_FAILURE = 410004014
STALE_SEQUENCE = 410001043
NOT_IN_ROOM = 410001016
NOT_PUBLISHING = 410001046
AGENT_LISTENS = 410001013
DRAINING = 410001041

STALE_CODES = frozenset({str(STALE_SEQUENCE)})
"""A press behind the newest one that the vendor has seen: it was ignored."""
NOT_READY_CODES = frozenset({str(NOT_IN_ROOM), str(NOT_PUBLISHING)})
"""A press of a user whom the agent cannot hear yet: away from the room, or not publishing."""

CODES: Mapping[int, Verdict] = MappingProxyType(
    {
        100000004: Expired,
        410001002: Gone,
        # Host, AppId, keys, services and test licences: the account's configuration.
        **dict.fromkeys((100000000, 100000001, 100000005, 100000010, 100000011), Denied),
        **dict.fromkeys((100000016, 100000017, 410000002, 410000005, 410000006), Denied),
        **dict.fromkeys((410001033, 410001034, 410001035), Denied),
        # Too many calls, or the vendor is short of everything.
        **dict.fromkeys((410000010, 410000018, 410001029), Throttled),
        # Too many agents.
        **dict.fromkeys((410000011, 410001025, 410001031), at_capacity),
        # What the gateway and then the service cannot read or use in a request.
        **dict.fromkeys((100000002, 100000003, 100000006, 100000007, 100000008), Refused),
        **dict.fromkeys((100000009, 100000012, 100000013, 100000014), Refused),
        **dict.fromkeys((410000003, 410000004, 410000014, AGENT_NOT_FOUND), Refused),
        **dict.fromkeys((410001010, 410001026, 410001027, 410001048), Refused),
        **dict.fromkeys((410001042, 410001047, 410001049), Refused),
    }
)
"""What is not here may have had an effect: `Indefinite`. Three of those on purpose:

- 410000001 and 410000009 are failures inside the vendor.
- 410001003, "create failed", does not say how far it came. The vendor advises a limited retry, and
  an unknown start is exactly that here: created again under the same user, which evicts what was
  half made, until `start_within` ends it.
- 410001041, the instance is draining: it will be gone, and is not yet.
"""

# The one failure of a create that the vendor's own gateway repeats (pulse-conversation-agent,
# docs/zh-CN/DEPLOYMENT.md): nothing came of it.
CREATE_CODES: Mapping[int, Verdict] = MappingProxyType(
    dict(CODES) | {TRANSIENT_CREATE_FAILURE: NotSent}
)

# A template that was registered a moment ago may not be known everywhere yet.
REGISTERED_CODES: Mapping[int, Verdict] = MappingProxyType(
    dict(CREATE_CODES) | {AGENT_NOT_FOUND: NotSent}
)

# The RTC server API has small numbers of its own (docs.zegocloud.com, article 9811): no such room
# (three codes), no such user, two rate limits, parameters, and the signature.
ROOM_CODES: Mapping[int, Verdict] = MappingProxyType(
    dict(CODES)
    | dict.fromkeys((104, 5024, 50001, 50002), Gone)
    | {7: Throttled, 206: Throttled, 2: Refused, 3: Denied}
)

# "Modify failed" and "update failed": the instance is what it was.
UPDATE_CODES: Mapping[int, Verdict] = MappingProxyType(
    dict(CODES) | dict.fromkeys((410001004, 410001011), Refused)
)

COMMAND_CODES: Mapping[int, Verdict] = MappingProxyType(
    dict(UPDATE_CODES)
    | dict.fromkeys((STALE_SEQUENCE, NOT_IN_ROOM, NOT_PUBLISHING), Refused)
    # Asking the LLM failed, and so did speaking.
    | dict.fromkeys((410001006, 410001007), Refused)
    # Nothing is said while somebody presses. It may be in a moment, and at a growing pace, since
    # a press can be long and all agents share ten calls per second.
    | {AGENT_LISTENS: NotSent}
    # To a command a draining instance is as good as gone: none will have an effect any more.
    | {DRAINING: Gone}
)
"""For what is asked of a running instance.

`Indefinite` on purpose: 410001044 and 410001045, a press that failed, which does not say whether
its Sequence was used up; sent again under the same one it is taken, or stale.
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with Code 0."""

    data: Mapping[str, Any]
    """The object under `Data`; empty where there is none, as after a delete."""
    request_id: str


def read_answer(reply: Reply, codes: Mapping[int, Verdict] = CODES) -> Answer | Outcome:
    """Return a reply's data, or what the lack of it means: the transport's verdict or a code's."""
    if isinstance(reply, Response) and reply.status == 429:
        return Throttled(code="HTTP429", message="HTTP status 429")
    envelope = read_object(reply)
    if not isinstance(envelope, dict):
        return envelope
    code, request_id = envelope.get("Code"), printable(envelope.get("RequestId"))
    if type(code) is not int:  # a bool is an int to isinstance, and no code
        return unreadable("there is no integer under Code", request_id)
    if code != 0:
        verdict = codes.get(code, Indefinite)
        message = printable(envelope.get("Message"))
        return verdict(code=str(code), message=message, request_id=request_id)
    data = envelope.get("Data")
    return Answer(data=data if isinstance(data, dict) else {}, request_id=request_id)


def acknowledged(answer: Answer | Outcome) -> Outcome:
    """Return `Done` for an answer of which only the success counts."""
    return Done(request_id=answer.request_id) if isinstance(answer, Answer) else answer


def read_command(reply: Reply) -> Outcome:
    """Return what the answer to a command means. `Done.result` has `Round`, if the vendor told it.

    `Round` is all that the pages know of; anything else would be a vendor's text in our database.
    """
    answer = read_answer(reply, COMMAND_CODES)
    if not isinstance(answer, Answer):
        return answer
    number = answer.data.get("Round")
    result = {"Round": number} if type(number) is int else None
    return Done(result=result, request_id=answer.request_id)
