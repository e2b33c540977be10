"""Volcengine real-time conversational AI: one RTC app's calls, in three versions of the API.

Rule 1: TaskId is the ledger's `session_name`, drawn before the send; it is the handle as well, so
the same start may be sent again.
Rule 2: 2024-06-01 knows no TaskId. A stop goes by room and user there, hence one row for each pair.
Rule 3: no call tells which tasks run. Presence in the room is all that can be asked, and proves
nothing.

Sources: StartVoiceChat and StopVoiceChat (docs/6348: 1316244 and its stop page for 2024-06-01,
1558163 and 1404672 for 2024-12-01, 2123348 and 2123349 for 2025-06-01), GetRoomOnlineUsers as in
the vendor's Go SDK, V4 signing as in its Python SDKs. What codes mean is in volcengine_answers,
what commands hold in volcengine_commands.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from orchestrator.core.caps import Caps, Recovery
from orchestrator.core.command import Command
from orchestrator.core.model import Agent, Verb
from orchestrator.core.outcome import Done, Refused
from orchestrator.providers.base import (
    UNNAMED,
    Conversation,
    Heard,
    Post,
    Problem,
    Provider,
    Request,
    Spec,
    Stamp,
    without_asking,
)
from orchestrator.providers.fields import given
from orchestrator.providers.llm_form import LlmForm
from orchestrator.providers.signing import Unsigned, V4Keys, canonical_query, sign_v4
from orchestrator.providers.spec import canonical_json, with_json_strings
from orchestrator.providers.volcengine_answers import (
    read_presence,
    read_start,
    read_stop,
    read_update,
)
from orchestrator.providers.volcengine_callbacks import hear
from orchestrator.providers.volcengine_commands import (
    PARAMETER_VERSIONS,
    UPDATE,
    changeable_parts,
    command_fields,
    command_problems,
    fixed_parts,
    has_command,
    update_fields,
)
from orchestrator.providers.volcengine_llm import FORM
from orchestrator.providers.volcengine_spec import (
    FIRST_GENERATION,
    asked_user_id,
    start_problems,
)

API_VERSIONS = (FIRST_GENERATION, "2024-12-01", "2025-06-01")
ONLINE_USERS_VERSION = "2023-11-01"

START = "StartVoiceChat"
STOP = "StopVoiceChat"
ONLINE_USERS = "GetRoomOnlineUsers"

LIMITS: Mapping[str, int] = MappingProxyType({START: 60, STOP: 60, UPDATE: 60, ONLINE_USERS: 40})
"""Calls per second of one account."""

IDLE_TIMEOUT = 60
"""Seconds without the user until the vendor ends the agent, where the spec says none. The vendor's
own default of 180 is billed."""

BY_TASK = Caps(
    recovery=Recovery.SAME_NAME,
    names_handle=True,
    poll_proves_absence=False,
    signature_window=timedelta(seconds=900),
    agent_user_scope="room",
)
BY_USER = replace(BY_TASK, recovery=Recovery.STOP_FIRST, one_per_user=True)

_ACTIONS: Mapping[Verb, str] = MappingProxyType(
    {
        Verb.START: START,
        Verb.STOP: STOP,
        Verb.POLL: ONLINE_USERS,
        Verb.UPDATE: UPDATE,
        # What `caps` rule out; the nearest there is.
        Verb.FIND: ONLINE_USERS,
        Verb.KICK: STOP,
    }
)

_UNSUPPORTED = Refused(code="Unsupported", message="Volcengine has no call for this")


@dataclass(kw_only=True, slots=True, repr=False, eq=False)
class Volcengine(Provider):
    """One RTC app of a Volcengine account, through one version of the API."""

    app_id: str
    access_key_id: str
    secret_access_key: str
    session_token: str | None = None
    region: str = "cn-north-1"
    api_version: str = "2024-12-01"
    """One of `API_VERSIONS`; ValueError else."""
    endpoint: str = "https://rtc.volcengineapi.com"
    """Scheme and host, no path."""
    callback_secret: str | None = None
    """Signs the app's message notifications; as a shared secret it may also be in the agent's own
    posts (`ServerMessageSignature` and its like)."""
    caps: Caps = field(init=False)
    limits: Mapping[str, int] = field(default_factory=lambda: LIMITS, init=False)
    llm: LlmForm = field(default=FORM, init=False)

    def __post_init__(self) -> None:
        if self.api_version not in API_VERSIONS:
            raise ValueError(f"unknown API version {self.api_version!r}, not in {API_VERSIONS}")
        self.caps = BY_USER if self._goes_by_user else BY_TASK

    @property
    def site(self) -> str:
        """Return provider, endpoint, region, app id and API version as canonical JSON."""
        return canonical_json(
            {
                "provider": "volcengine",
                "endpoint": self.endpoint,
                "region": self.region,
                "app_id": self.app_id,
                "api_version": self.api_version,
            }
        ).decode()

    def at(self, site: str) -> "Volcengine":
        """Return this account where `site` says it was, with today's keys.

        Raises ValueError or KeyError on a site that is not one of Volcengine's.
        """
        where = json.loads(site)
        return replace(
            self,
            endpoint=where["endpoint"],
            region=where["region"],
            app_id=where["app_id"],
            api_version=where["api_version"],
        )

    def action(self, verb: Verb) -> str:
        """Return the vendor's action that `verb` counts against."""
        return _ACTIONS[verb]

    def agent_user_id(self, spec: Spec) -> str | None:
        """Return `AgentConfig.UserId` (2024-06-01: `Config.BotName`), if the spec has one."""
        return asked_user_id(self.api_version, spec)

    def problems(self, agent: Agent, spec: Spec) -> tuple[Problem, ...]:
        """Return everything the vendor would refuse about this start, without asking it."""
        return start_problems(self.api_version, self.app_id, agent, spec)

    def body(self, agent: Agent, spec: Spec) -> bytes:
        """Return the StartVoiceChat body. The spec is one without problems."""
        return canonical_json(self._start_fields(agent, spec))

    def start(self, agent: Agent, spec: Spec, stamp: Stamp) -> Conversation:
        """Start the agent. `Done.handle` is its TaskId, also where the API does not know it."""
        reply = yield self._post(START, self.body(agent, spec), stamp)
        return read_start(reply, agent.session_name)

    def stop(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Stop it by its TaskId, of the handle seen or else of the name announced."""
        if self.missing(agent):
            return (yield from without_asking(UNNAMED))
        return read_stop((yield self._post(STOP, canonical_json(self._names(agent)), stamp)))

    def poll(self, agent: Agent, stamp: Stamp) -> Conversation:
        """Ask who is in the room, and so whether the agent's user id is. `seen` has them all."""
        query = {
            "Action": ONLINE_USERS,
            "Version": ONLINE_USERS_VERSION,
            "AppId": self.app_id,
            "RoomId": agent.room_id,
        }
        reply = yield self._get(query, stamp)
        return read_presence(reply, agent.name)

    def find(self, agent: Agent, stamp: Stamp) -> Conversation:  # noqa: ARG002 - the protocol's
        """Refuse: no call lists or describes tasks; the stop goes by a name of ours."""
        return (yield from without_asking(_UNSUPPORTED))

    def kick(self, agent: Agent, stamp: Stamp) -> Conversation:  # noqa: ARG002 - the protocol's
        """Refuse: a user can be banned from a room, but nobody says that this ends the task."""
        return (yield from without_asking(_UNSUPPORTED))

    def command_action(self, command: Command) -> str | None:
        """Return UpdateVoiceChat, or null for what this version of it cannot do."""
        return UPDATE if has_command(self.api_version, command.kind) else None

    def command_problems(self, command: Command) -> tuple[Problem, ...]:
        """Return everything the vendor would refuse about this command, without asking it."""
        return command_problems(self.api_version, self.app_id, command)

    def command(self, agent: Agent, command: Command, stamp: Stamp) -> Conversation:
        """Carry out a command on the agent. The vendor returns nothing but its success."""
        fields = command_fields(command) | self._names(agent)
        return read_update((yield self._post(UPDATE, canonical_json(fields), stamp)))

    def fixed_body(self, agent: Agent, spec: Spec) -> bytes:
        """Return the body of a start without what UpdateParameters can change, if there is that."""
        fields = self._start_fields(agent, spec)
        if self.api_version in PARAMETER_VERSIONS:
            fields["Config"] = fixed_parts(fields["Config"])
        return canonical_json(fields)

    def update(self, agent: Agent, spec: Spec, stamp: Stamp) -> Conversation:
        """Give the running agent what of this spec it can take.

        Where nothing can be changed, a spec with an equal `fixed_body` is the same spec in other
        words: it is there already, and nobody is asked.
        """
        config = self._start_fields(agent, spec)["Config"]
        parts = changeable_parts(config) if self.api_version in PARAMETER_VERSIONS else {}
        if not parts:
            return (yield from without_asking(Done()))
        fields = update_fields(parts) | self._names(agent)
        return read_update((yield self._post(UPDATE, canonical_json(fields), stamp)))

    def hear(self, post: Post) -> Heard:
        """Judge a callback: a message notification, or a post of the agent's own.

        2024-06-01 lets nobody choose a TaskId or learn it, so what a callback tells there belongs
        to no agent that we could name: a genuine one says nothing.
        """
        heard = hear(post, app_id=self.app_id, secret=self.callback_secret)
        return () if self._goes_by_user and isinstance(heard, tuple) else heard

    def missing(self, agent: Agent) -> tuple[str, ...]:
        """Return what a stop lacks of room and TaskId, or in 2024-06-01 of room and user."""
        task_id = agent.vendor_task_id or agent.session_name
        whom = ("user_id", agent.user_id) if self._goes_by_user else ("vendor_task_id", task_id)
        return tuple(name for name, value in (("room_id", agent.room_id), whom) if not value)

    @property
    def _goes_by_user(self) -> bool:
        return self.api_version == FIRST_GENERATION

    def _names(self, agent: Agent) -> dict[str, Any]:
        """Return whom a stop or an update is for: the handle seen, or else the name announced."""
        fields = {"AppId": self.app_id, "RoomId": agent.room_id}
        if self._goes_by_user:
            return {**fields, "UserId": agent.user_id}
        return {**fields, "TaskId": agent.vendor_task_id or agent.session_name}

    def _start_fields(self, agent: Agent, spec: Spec) -> dict[str, Any]:
        fields = {
            **given(spec),
            "AppId": self.app_id,
            "RoomId": agent.room_id,
            **(self._by_user(agent, spec) if self._goes_by_user else self._by_task(agent, spec)),
        }
        return {**fields, "Config": _with_json_strings(fields["Config"])}

    def _by_task(self, agent: Agent, spec: Spec) -> dict[str, Any]:
        config = {
            "IdleTimeout": IDLE_TIMEOUT,
            "UserId": agent.name,
            **given(spec.get("AgentConfig")),
            "TargetUserId": [agent.user_id],
        }
        return {"TaskId": agent.session_name, "AgentConfig": config}

    def _by_user(self, agent: Agent, spec: Spec) -> dict[str, Any]:
        """Return the first generation's part. No page of it knows an idle time-out."""
        config = {"BotName": agent.name, **given(spec["Config"])}
        return {"UserId": agent.user_id, "Config": config}

    def _post(self, action: str, body: bytes, stamp: Stamp) -> Request:
        return self._signed(
            Unsigned(
                method="POST",
                host=urlsplit(self.endpoint).netloc,
                query={"Action": action, "Version": self.api_version},
                headers={"Content-Type": "application/json"},
                body=body,
            ),
            stamp,
        )

    def _get(self, query: Mapping[str, str], stamp: Stamp) -> Request:
        host = urlsplit(self.endpoint).netloc
        return self._signed(
            Unsigned(method="GET", host=host, query=query, headers={}, body=b""), stamp
        )

    def _signed(self, unsigned: Unsigned, stamp: Stamp) -> Request:
        keys = V4Keys(
            access_key_id=self.access_key_id,
            secret_access_key=self.secret_access_key,
            session_token=self.session_token,
            region=self.region,
        )
        return Request(
            action=str(unsigned.query["Action"]),
            method=unsigned.method,
            url=f"{self.endpoint}/?{canonical_query(unsigned.query)}",
            headers=sign_v4(unsigned, keys=keys, at=stamp.signed_at),
            body=unsigned.body,
        )


def _with_json_strings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return `Config` with strings where the vendor wants JSON in a string."""
    if config.get("LLMConfig") is None:
        return dict(config)
    llm = with_json_strings(given(config["LLMConfig"]), {"Custom", "Feature"})
    return {**config, "LLMConfig": llm}
