"""Tencent TRTC "Conversational AI" (API 2019-07-22): one account's calls.

Rule 1: a start is a success only with a TaskId, since nothing else can stop it.
Rule 2: the UserSig is made for each send and stays out of `body`, which tells two starts apart.

Sources: StartAIConversation, StopAIConversation, DescribeAIConversation, RemoveUser and
RemoveUserByStrRoomId of API 2019-07-22. What codes mean is in tencent_answers, what commands hold
in tencent_commands.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from orchestrator.core.caps import Caps, Recovery
from orchestrator.core.command import Command
from orchestrator.core.model import Agent, Verb
from orchestrator.core.outcome import Done, Gone, Outcome
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
from orchestrator.providers.reading import started
from orchestrator.providers.signing import TC3Call, TC3Keys, sign_tc3
from orchestrator.providers.spec import canonical_json, with_json_strings
from orchestrator.providers.tencent_answers import (
    Fields,
    read_acknowledgement,
    read_answer,
    read_description,
    read_started,
)
from orchestrator.providers.tencent_callbacks import hear
from orchestrator.providers.tencent_commands import (
    ACTIONS,
    CONTROL,
    UPDATE,
    command_fields,
    command_problems,
    fixed_fields,
    update_fields,
)
from orchestrator.providers.tencent_llm import FORM
from orchestrator.providers.tencent_spec import JSON_FIELDS, is_numeric_room, start_problems
from orchestrator.providers.tokens import make_user_sig

API_VERSION = "2019-07-22"

CAPS = Caps(
    recovery=Recovery.FIND,
    names_handle=False,
    poll_proves_absence=True,
    signature_window=timedelta(seconds=300),
    agent_user_scope="room",
)

START = "StartAIConversation"
STOP = "StopAIConversation"
DESCRIBE = "DescribeAIConversation"
REMOVE_FROM_STRING_ROOM = "RemoveUserByStrRoomId"
REMOVE_FROM_NUMERIC_ROOM = "RemoveUser"

LIMITS: Mapping[str, int] = MappingProxyType(
    dict.fromkeys(
        (START, STOP, DESCRIBE, REMOVE_FROM_STRING_ROOM, REMOVE_FROM_NUMERIC_ROOM, CONTROL, UPDATE),
        20,
    )
)
"""Calls per second. Newer pages say 50; 20 holds for every account."""

MAX_IDLE_TIME = 60
"""Seconds without a published stream until the vendor ends the agent, where the spec says none."""

USER_SIG_LIFE = timedelta(hours=24)
"""How long an agent may enter its room again: the vendor checks a UserSig at each entry."""

_ACTIONS: Mapping[Verb, str] = MappingProxyType(
    {
        Verb.START: START,
        Verb.STOP: STOP,
        Verb.FIND: DESCRIBE,
        Verb.POLL: DESCRIBE,
        Verb.KICK: REMOVE_FROM_STRING_ROOM,
        Verb.UPDATE: UPDATE,
    }
)


@dataclass(kw_only=True, slots=True, repr=False, eq=False)
class Tencent:
    """One SdkAppId of a Tencent Cloud account, in one region."""

    sdk_app_id: int
    secret_id: str
    secret_key: str
    usersig_key: str
    """The TRTC application's SecretKey, 64 characters, used as they are."""
    region: str
    """Where agents run (X-TC-Region); the endpoint's host says only where we enter."""
    session_token: str | None = None
    endpoint: str = "https://trtc.intl.tencentcloudapi.com"
    callback_key: str | None = None
    """Signs the callbacks of the application; set in the console."""
    caps: Caps = field(default=CAPS, init=False)
    limits: Mapping[str, int] = field(default_factory=lambda: LIMITS, init=False)
    llm: LlmForm = field(default=FORM, init=False)

    @property
    def site(self) -> str:
        """Return provider, endpoint, region, app id and API version as canonical JSON."""
        return canonical_json(
            {
                "provider": "tencent",
                "endpoint": self.endpoint,
                "region": self.region,
                "app_id": self.sdk_app_id,
                "api_version": API_VERSION,
            }
        ).decode()

    def at(self, site: str) -> "Tencent":
        """Return this account where `site` says it was, with today's keys.

        Raises ValueError or KeyError on a site that is not one of Tencent's.
        """
        where = json.loads(site)
        return replace(
            self,
            endpoint=where["endpoint"],
            region=where["region"],
            sdk_app_id=where["app_id"],
        )

    def action(self, verb: Verb) -> str:
        """Return the vendor's action that `verb` counts against."""
        return _ACTIONS[verb]

    def agent_user_id(self, spec: Spec) -> str | None:
        """Return `AgentConfig.UserId`, if the spec has one."""
        config = spec.get("AgentConfig")
        given = config.get("UserId") if isinstance(config, Mapping) else None
        return given if isinstance(given, str) else None

    def problems(self, agent: Agent, spec: Spec) -> tuple[Problem, ...]:
        """Return everything the vendor would refuse about this start, without asking it."""
        return start_problems(self.sdk_app_id, agent, spec)

    def body(self, agent: Agent, spec: Spec) -> bytes:
        """Return the StartAIConversation body, less the UserSig, of a spec without problems."""
        return canonical_json(self._start_fields(agent, spec))

    def start(self, agent: Agent, spec: Spec, stamp: Stamp) -> Conversation:
        """Start the agent. `Done.handle` is the TaskId."""
        fields = self._start_fields(agent, spec)
        config = fields["AgentConfig"]
        config["UserSig"] = make_user_sig(
            sdk_app_id=self.sdk_app_id,
            key=self.usersig_key,
            user_id=config["UserId"],
            at=stamp.signed_at,
            life=USER_SIG_LIFE,
        )
        return started((yield from self._ask(START, fields, stamp, read_started)))

    def stop(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Stop it by its TaskId; there is no stop by a name of ours."""
        if self.missing(agent):
            return (yield from without_asking(UNNAMED))
        fields = {"TaskId": agent.vendor_task_id}
        return (yield from self._ask(STOP, fields, stamp, read_acknowledgement))

    def find(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Ask for it by its SessionId. `Done.handle` is the TaskId, if the vendor tells it.

        What was not announced has no SessionId of ours: it is asked for by its TaskId.
        """
        if agent.session_name:
            fields = {"SdkAppId": self.sdk_app_id, "SessionId": agent.session_name}
            return (yield from self._ask(DESCRIBE, fields, stamp, read_description))
        return (yield from self.poll(agent, stamp))

    def poll(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Ask by its TaskId whether it is still there. `Done.name` is its SessionId, if it has one.

        That is what tells whose an agent is of which only a callback told.
        """
        if self.missing(agent):
            return (yield from without_asking(UNNAMED))
        fields = {"TaskId": agent.vendor_task_id}
        return (yield from self._ask(DESCRIBE, fields, stamp, read_description))

    def kick(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Remove the agent's user id from its room.

        The ledger does not say whether a room of digits is a numeric room or a string room of that
        name, and the vendor keeps both apart: such a room is asked for as both, string first.
        """
        if not agent.room_id or not agent.name:
            return (yield from without_asking(UNNAMED))
        fields = self._removal(agent, agent.room_id)
        named = yield from self._ask(REMOVE_FROM_STRING_ROOM, fields, stamp, read_acknowledgement)
        if not isinstance(named, Done | Gone) or not is_numeric_room(agent.room_id):
            return named
        fields = self._removal(agent, int(agent.room_id))
        numbered = yield from self._ask(
            REMOVE_FROM_NUMERIC_ROOM, fields, stamp, read_acknowledgement
        )
        return named if isinstance(numbered, Gone) else numbered

    def command_action(self, command: Command) -> str | None:
        """Return the vendor's call for a command; null for what it has none for."""
        return ACTIONS.get(command.kind)

    def command_problems(self, command: Command) -> tuple[Problem, ...]:
        """Return everything the vendor would refuse about this command, without asking it."""
        return command_problems(command)

    def command(self, agent: Agent, command: Command, stamp: Stamp) -> Conversation:
        """Carry out a command on the conversation. The vendor returns nothing but its RequestId."""
        fields = command_fields(agent.vendor_task_id, command)
        action = ACTIONS[command.kind]
        return (yield from self._ask(action, fields, stamp, read_acknowledgement))

    def fixed_body(self, agent: Agent, spec: Spec) -> bytes:
        """Return the body of a start without what UpdateAIConversation can change."""
        return canonical_json(fixed_fields(self._start_fields(agent, spec)))

    def update(self, agent: Agent, spec: Spec, stamp: Stamp) -> Conversation:
        """Give the running conversation what of this spec it can take."""
        fields = update_fields(self._start_fields(agent, spec)) | {"TaskId": agent.vendor_task_id}
        return (yield from self._ask(UPDATE, fields, stamp, read_acknowledgement))

    def hear(self, post: Post) -> Heard:
        """Judge a callback of event group 9. It tells a TaskId and a room, and no name of ours."""
        return hear(post, sdk_app_id=self.sdk_app_id, key=self.callback_key)

    def missing(self, agent: Agent) -> tuple[str, ...]:
        """Return `vendor_task_id` if it is: nothing else stops a conversation."""
        return () if agent.vendor_task_id else ("vendor_task_id",)

    def _removal(self, agent: Agent, room: str | int) -> dict[str, Any]:
        return {"SdkAppId": self.sdk_app_id, "RoomId": room, "UserIds": [agent.name]}

    def _start_fields(self, agent: Agent, spec: Spec) -> dict[str, Any]:
        """Return the spec with all that the daemon fills in, but for the UserSig."""
        asked = with_json_strings(given(spec), JSON_FIELDS)
        config = {
            "MaxIdleTime": MAX_IDLE_TIME,
            **given(spec.get("AgentConfig")),
            "UserId": self.agent_user_id(spec) or agent.name,
            "TargetUserId": agent.user_id,
        }
        return {
            "RoomIdType": 1,
            **asked,
            "SdkAppId": self.sdk_app_id,
            "RoomId": agent.room_id,
            "SessionId": agent.session_name,
            "AgentConfig": config,
        }

    def _ask(
        self, action: str, fields: Fields, stamp: Stamp, read: Callable[[Fields], Outcome]
    ) -> Conversation:
        """Send one request; `read` judges an answer that holds no error."""
        body = canonical_json(fields)
        call = TC3Call(
            host=urlsplit(self.endpoint).netloc,
            action=action,
            version=API_VERSION,
            region=self.region,
            body=body,
        )
        keys = TC3Keys(
            secret_id=self.secret_id,
            secret_key=self.secret_key,
            session_token=self.session_token,
        )
        reply = yield Request(
            action=action,
            method="POST",
            url=f"{self.endpoint}/",
            headers=sign_tc3(call, keys=keys, at=stamp.signed_at),
            body=body,
        )
        return read_answer(reply, read)
