"""ZEGO "AI Agent" (server API V2): one account's calls.

Rule 1: a create is a success only with an AgentInstanceId, since nothing else can delete it.
Rule 2: every request has a nonce of its own, also within one conversation.

The vendor can neither list instances nor look one up by what we named it. What is left is to look
into the room for the agent's user id, and that needs every page of it.

Sources: core_products/aiagent/en/server of ZEGOCLOUD/docs_all (accessing-server-apis,
create-agent-instance, delete-agent-instance), and the RTC server API pages DescribeUserList and
KickoutUser. What codes mean is in zego_answers, what commands hold in zego_commands.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from orchestrator.core.caps import Caps, Recovery
from orchestrator.core.command import Command
from orchestrator.core.model import Agent, Verb
from orchestrator.core.outcome import (
    Denied,
    Done,
    Expired,
    Gone,
    Indefinite,
    NotSent,
    Refused,
    Throttled,
)
from orchestrator.providers.base import (
    UNNAMED,
    Conversation,
    Heard,
    Post,
    Problem,
    Request,
    Spec,
    Stamp,
    without_asking,
)
from orchestrator.providers.fields import given
from orchestrator.providers.llm_form import LlmForm
from orchestrator.providers.reading import Verdict, printable, started, unreadable
from orchestrator.providers.signing import Query, zego_query
from orchestrator.providers.spec import canonical_json
from orchestrator.providers.zego_answers import (
    AGENT_EXISTS,
    CREATE_CODES,
    NOT_READY_CODES,
    REGISTERED_CODES,
    ROOM_CODES,
    STALE_CODES,
    UPDATE_CODES,
    Answer,
    acknowledged,
    read_answer,
    read_command,
)
from orchestrator.providers.zego_callbacks import hear
from orchestrator.providers.zego_commands import (
    ACTIONS,
    UPDATE_INSTANCE,
    command_fields,
    command_problems,
    fixed_fields,
    update_fields,
)
from orchestrator.providers.zego_llm import FORM
from orchestrator.providers.zego_spec import start_problems

CAPS = Caps(
    recovery=Recovery.EVICT,
    names_handle=False,
    poll_proves_absence=True,
    signature_window=timedelta(seconds=600),
    agent_user_scope="account",
    stale_codes=STALE_CODES,
    not_ready_codes=NOT_READY_CODES,
)

REGISTER = "RegisterAgent"
UPDATE = "UpdateAgent"
CREATE = "CreateAgentInstance"
DELETE = "DeleteAgentInstance"
QUERY = "QueryAgentInstanceStatus"
LIST_USERS = "DescribeUserList"
KICK_OUT = "KickoutUser"

LIMITS: Mapping[str, int] = MappingProxyType(
    dict.fromkeys((REGISTER, UPDATE, CREATE, DELETE, QUERY, *ACTIONS.values()), 10)
    | {LIST_USERS: 200, KICK_OUT: 50}
)
"""Calls per second. DescribeUserList is also limited to one per second and room."""

MAX_IDLE_TIME = 60
"""Seconds without the user in the room until the vendor deletes the agent, if the spec says none.
The vendor's own default is 120; a shorter one makes a lost agent cheaper."""

PAGE_SIZE = 200
"""Users that DescribeUserList returns at most."""
PAGE_LIMIT = 50
"""Pages of one room that are read before we give up on it."""

_ACTIONS: Mapping[Verb, str] = MappingProxyType(
    {
        Verb.START: CREATE,
        Verb.STOP: DELETE,
        Verb.FIND: LIST_USERS,
        Verb.POLL: QUERY,
        Verb.KICK: KICK_OUT,
        Verb.UPDATE: UPDATE_INSTANCE,
    }
)

_STATUSES = ("IDLE", "LISTENING", "THINKING", "SPEAKING")


@dataclass(kw_only=True, slots=True, repr=False, eq=False)
class Zego:
    """One AppId of a ZEGO account, reached through one regional host."""

    app_id: int
    server_secret: str
    endpoint: str = "https://aigc-aiagent-api.zegotech.cn"
    rtc_endpoint: str = "https://rtc-api.zego.im"
    callback_secret: str | None = None
    """Signs the callbacks of the project; not the server secret."""
    caps: Caps = field(default=CAPS, init=False)
    limits: Mapping[str, int] = field(default_factory=lambda: LIMITS, init=False)
    llm: LlmForm = field(default=FORM, init=False)

    @property
    def site(self) -> str:
        """Return provider, endpoint and app id as canonical JSON.

        The RTC endpoint is not part of it: rooms are the same wherever they are asked about.
        """
        where = {"provider": "zego", "endpoint": self.endpoint, "app_id": self.app_id}
        return canonical_json(where).decode()

    def at(self, site: str) -> "Zego":
        """Return this account where `site` says it was, with today's keys.

        Raises ValueError or KeyError on a site that is not one of ZEGO's.
        """
        where = json.loads(site)
        return replace(self, endpoint=where["endpoint"], app_id=where["app_id"])

    def action(self, verb: Verb) -> str:
        """Return the vendor's action that `verb` counts against.

        A start whose spec carries a template sends RegisterAgent before it.
        """
        return _ACTIONS[verb]

    def agent_user_id(self, spec: Spec) -> str | None:
        """Return `RTC.AgentUserId`, if the spec has one."""
        rtc = spec.get("RTC")
        given = rtc.get("AgentUserId") if isinstance(rtc, Mapping) else None
        return given if isinstance(given, str) else None

    def problems(self, agent: Agent, spec: Spec) -> tuple[Problem, ...]:
        """Return everything the vendor would refuse about this start, without asking it."""
        return start_problems(agent, spec)

    def body(self, agent: Agent, spec: Spec) -> bytes:
        """Return the template and the create body of a spec without problems."""
        return canonical_json(
            {"Agent": spec.get("Agent"), CREATE: self._create_fields(agent, spec)}
        )

    def start(self, agent: Agent, spec: Spec, stamp: Stamp) -> Conversation:
        """Register the template, if the spec carries one, then create the instance.

        `Done.handle` is the AgentInstanceId. While the template is not known to be registered
        nothing of the agent has been sent, whatever became of the template.
        """
        template = spec.get("Agent")
        if template is None:
            return (yield from self._create(agent, spec, stamp, CREATE_CODES))
        match (yield from self._register(template, stamp)):
            case Done():
                return (yield from self._create(agent, spec, stamp, REGISTERED_CODES))
            case (Refused() | Denied() | Throttled() | Expired()) as definite:
                return definite
            case unknown:
                return NotSent(
                    code=unknown.code,
                    message=printable(f"the template was not registered: {unknown.message}"),
                    request_id=unknown.request_id,
                )

    def stop(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Delete the instance at once; gracefully it might run on for two minutes."""
        if not agent.vendor_task_id:
            return (yield from without_asking(UNNAMED))
        fields = {"AgentInstanceId": agent.vendor_task_id}
        return acknowledged(read_answer((yield self._post(DELETE, fields, stamp))))

    def poll(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Ask for the instance's status by its id."""
        if not agent.vendor_task_id:
            return (yield from without_asking(UNNAMED))
        fields = {"AgentInstanceId": agent.vendor_task_id}
        answer = read_answer((yield self._post(QUERY, fields, stamp)))
        if not isinstance(answer, Answer):
            return answer
        if answer.data.get("Status") not in _STATUSES:
            return unreadable("there is no known status under Data.Status", answer.request_id)
        return Done(request_id=answer.request_id)

    def find(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Look for the agent's user id in its room, page after page; `seen` is who was on them.

        `Done` has no handle: the room does not know the instance's id. `Gone` only after the last
        page. Without a room or a user id to look for, the instance is asked about instead.
        """
        if not self._has_place(agent):
            return (yield from self.poll(agent, stamp))
        marker, seen = "", tuple[str, ...]()
        for _ in range(PAGE_LIMIT):
            query = {"RoomId": agent.room_id, "Mode": "0", "Limit": str(PAGE_SIZE)}
            if marker:
                query["Marker"] = marker
            page = read_answer((yield self._get(LIST_USERS, query, stamp)), ROOM_CODES)
            if not isinstance(page, Answer):
                return page
            users, following = _user_ids(page), page.data.get("Marker") or ""
            if users is None or not isinstance(following, str):
                return unreadable("this is no page of users", page.request_id)
            seen += tuple(users)
            if agent.name in users:
                return Done(request_id=page.request_id, seen=seen)
            if not users or not following:
                return Gone(code="NotInRoom", request_id=page.request_id, seen=seen)
            marker = following
        return Indefinite(code="RoomTooLarge", message=f"more than {PAGE_LIMIT} pages of users")

    def kick(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Remove the agent's user id from its room."""
        if not self._has_place(agent):
            return (yield from without_asking(UNNAMED))
        query = {"RoomId": agent.room_id, "UserId[]": [agent.name]}
        return acknowledged(read_answer((yield self._get(KICK_OUT, query, stamp)), ROOM_CODES))

    def command_action(self, command: Command) -> str | None:
        """Return the vendor's call for a command; null for `function_result`."""
        return ACTIONS.get(command.kind)

    def command_problems(self, command: Command) -> tuple[Problem, ...]:
        """Return everything the vendor would refuse about this command, without asking it."""
        return command_problems(command)

    def command(self, agent: Agent, command: Command, stamp: Stamp) -> Conversation:
        """Carry out a command on the instance. `Done.result` has the `Round` it began or ended."""
        fields = command_fields(agent.vendor_task_id, command)
        return read_command((yield self._post(ACTIONS[command.kind], fields, stamp)))

    def fixed_body(self, agent: Agent, spec: Spec) -> bytes:
        """Return the body of a start without what UpdateAgentInstance can change.

        The template is all in it, since whether instances follow a changed one is
        not documented.
        """
        fixed = fixed_fields(self._create_fields(agent, spec))
        return canonical_json({"Agent": spec.get("Agent"), CREATE: fixed})

    def update(self, agent: Agent, spec: Spec, stamp: Stamp) -> Conversation:
        """Give the running instance the blocks of this spec."""
        fields = update_fields(self._create_fields(agent, spec))
        request = self._post(
            UPDATE_INSTANCE, {**fields, "AgentInstanceId": agent.vendor_task_id}, stamp
        )
        return acknowledged(read_answer((yield request), UPDATE_CODES))

    def hear(self, post: Post) -> Heard:
        """Judge a callback. The body is not signed, so what it tells is no evidence."""
        return hear(post, app_id=self.app_id, secret=self.callback_secret)

    def missing(self, agent: Agent) -> tuple[str, ...]:
        """Return `vendor_task_id` if there is neither that nor a room and a user id to remove.

        The instance's id is enough by itself, so it is the one that is asked for.
        """
        can_stop = bool(agent.vendor_task_id) or self._has_place(agent)
        return () if can_stop else ("vendor_task_id",)

    def _has_place(self, agent: Agent) -> bool:
        """Tell whether it is known which user of which room the agent is."""
        return bool(agent.room_id and agent.name)

    def _register(self, template: Spec, stamp: Stamp) -> Conversation:
        """Make the vendor's template equal to ours, whether it knows one of that AgentId or not."""
        answer = read_answer((yield self._post(REGISTER, template, stamp)))
        if isinstance(answer, Answer) or answer.code != str(AGENT_EXISTS):
            return acknowledged(answer)
        return acknowledged(read_answer((yield self._post(UPDATE, template, stamp))))

    def _create(
        self, agent: Agent, spec: Spec, stamp: Stamp, codes: Mapping[int, Verdict]
    ) -> Conversation:
        """Create the instance; its id is the handle."""
        request = self._post(CREATE, self._create_fields(agent, spec), stamp)
        answer = read_answer((yield request), codes)
        if not isinstance(answer, Answer):
            return started(answer)
        handle = answer.data.get("AgentInstanceId")
        if not isinstance(handle, str) or not handle:
            return unreadable("the create succeeded without an id", answer.request_id)
        return Done(handle=handle, request_id=answer.request_id)

    def _create_fields(self, agent: Agent, spec: Spec) -> dict[str, Any]:
        """Return the create body: the spec without the template, with what the daemon fills in.

        Where the spec has no UserStreamId it is the user's id: the stream a client publishes
        under its own name. The history is what stands under Messages (SyncMode 1), unless the
        spec asks for ZIM, which few projects have and the vendor takes for granted.
        """
        asked = given(spec)
        template = asked.pop("Agent", {})
        return {
            "AgentId": template.get("AgentId"),
            **asked,
            "UserId": agent.user_id,
            "RTC": {
                "UserStreamId": agent.user_id,
                **given(asked.get("RTC")),
                "RoomId": agent.room_id,
                "AgentStreamId": agent.stream_id,
                "AgentUserId": self.agent_user_id(spec) or agent.name,
            },
            "MessageHistory": {"SyncMode": 1, **given(asked.get("MessageHistory"))},
            "AdvancedConfig": {
                "MaxIdleTime": MAX_IDLE_TIME,
                **given(asked.get("AdvancedConfig")),
            },
        }

    def _post(self, action: str, fields: Mapping[str, Any], stamp: Stamp) -> Request:
        """Return a request to the agent API."""
        query = self._query(action, stamp, {})
        return Request(
            action=action,
            method="POST",
            url=f"{self.endpoint}/?{query}",
            headers={"Content-Type": "application/json"},
            body=canonical_json(fields),
        )

    def _get(self, action: str, query: Query, stamp: Stamp) -> Request:
        """Return a request to the RTC server API, which takes everything in the query."""
        return Request(
            action=action,
            method="GET",
            url=f"{self.rtc_endpoint}/?{self._query(action, stamp, query)}",
            headers={},
            body=b"",
        )

    def _query(self, action: str, stamp: Stamp, extra: Query) -> str:
        return zego_query(
            app_id=self.app_id,
            server_secret=self.server_secret,
            nonce=stamp.nonce(),
            at=stamp.signed_at,
            action=action,
            extra=extra,
        )


def _user_ids(page: Answer) -> list[str] | None:
    """Return the ids of a page of users, null if one cannot be read: it might be the agent's."""
    users = page.data.get("UserList")
    if not isinstance(users, list):
        return None
    ids = [user.get("UserId") for user in users if isinstance(user, dict)]
    found = [each for each in ids if isinstance(each, str)]
    return found if len(found) == len(users) else None
