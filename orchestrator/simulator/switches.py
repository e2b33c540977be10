"""Everything the vendors' documents leave open, as a named switch with its default.

Rule 1: a documented behaviour is the default; where nothing is documented, the default is the
reading that is hardest on a client, unless it would only make every test slower.
Rule 2: a switch may be turned while the simulator runs and counts from the next call on.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


def _switch(means: str, *choices: str, default: Any) -> Any:
    return field(default=default, metadata={"means": means, "choices": choices})


@dataclass(slots=True, kw_only=True)
class Switches:
    """The open points. Durations are milliseconds of the world's time; a limit of 0 means none."""

    enforce_signature_window: bool = _switch(
        "refuse signatures outside the vendor's window (900 s, 300 s, 600 s)", default=True
    )
    join_delay_ms: int = _switch("how long after its start an agent is in the room", default=0)
    visibility_lag_ms: int = _switch(
        "how long after its start the vendor answers 'no such task' about an agent", default=0
    )
    users_present: bool = _switch("users nobody spoke of are in the room", default=True)
    users_publish: bool = _switch("users nobody spoke of publish a stream", default=True)
    character: str = _switch(
        "what counts as one where the length of a text is limited",
        "code_point",
        "utf16_unit",
        "byte",
        default="code_point",
    )
    llm_time_limits: bool = _switch(
        "give up on a customer's LLM that is late (10 s, Timeout, 10 s; 30 s between chunks)",
        default=True,
    )
    talk_every_s: int = _switch(
        "seconds after which each user says something again, to an agent with an LLM of the "
        "customer's (0: never)",
        default=0,
    )

    volcengine_qps: int = _switch("calls per second of each VoiceChat action", default=60)
    volcengine_lookup_qps: int = _switch("calls per second of GetRoomOnlineUsers", default=40)
    volcengine_duplicate_start: str = _switch(
        "a start of a running task: the text as Result, or Error TaskAlreadyExists",
        "result",
        "error",
        default="result",
    )
    volcengine_unknown_task: str = _switch(
        "a stop or update of no task: Error with HTTP 400, Error with HTTP 200, or 'ok'",
        "error_400",
        "error_200",
        "ok",
        default="error_400",
    )
    volcengine_success_result: str = _switch(
        "what Result holds on success: the string, or an empty object", "ok", "object", default="ok"
    )
    volcengine_second_task: str = _switch(
        "another TaskId in an occupied room", "accept", "refuse", default="accept"
    )
    volcengine_speech_limit: int = _switch(
        "characters of an ExternalTextToSpeech, which some pages only advise", default=200
    )
    volcengine_agent_visible: bool = _switch(
        "agents stand in VisibleUserList (else in InvisibleUserList)", default=True
    )

    tencent_qps: int = _switch("calls per second of each action", default=20)
    tencent_region_bound: bool = _switch(
        "a TaskId is known only in the region of its start", default=True
    )
    tencent_describe_without_task_id: bool = _switch(
        "Describe by SessionId leaves TaskId out of its answer", default=False
    )
    tencent_duplicate_session: str = _switch(
        "a start under a live SessionId", "reject", "takeover", "allow", default="reject"
    )
    tencent_duplicate_agent: str = _switch(
        "a start under an agent UserId that is live in the room",
        "reject",
        "takeover",
        "allow",
        default="takeover",
    )
    tencent_stopped_ms: int = _switch(
        "how long Describe answers Stopped before the task is unknown", default=1000
    )
    tencent_agents_publish: bool = _switch(
        "another agent's stream keeps an agent from being idle", default=False
    )
    tencent_kick_ends: bool = _switch("removing the agent's UserId ends its task", default=True)

    zego_qps: int = _switch("calls per second of each AI Agent action", default=10)
    zego_list_qps: int = _switch("calls per second of DescribeUserList", default=200)
    zego_list_room_qps: int = _switch(
        "calls per second of DescribeUserList about one room", default=1
    )
    zego_kick_qps: int = _switch("calls per second of KickoutUser", default=50)
    zego_rate_code: int = _switch(
        "Code of an AI Agent call that is one too many", default=410000018
    )
    zego_rtc_rate_code: int = _switch("Code of an RTC server call that is one too many", default=7)
    zego_capacity: int = _switch("instances of one AppId at a time", default=10)
    zego_agents_registered: bool = _switch("every AgentId is registered", default=True)
    zego_equal_sequence: str = _switch(
        "a Sequence equal to the last: stale, taken, or taken only for the stop of its start",
        "reject",
        "accept",
        "legacy_pairing",
        default="reject",
    )
    zego_high_while_listening: bool = _switch(
        "Priority High is taken while the agent listens (else 410001013)", default=True
    )
    zego_answer_ms: int = _switch(
        "how long the agent speaks when it has something to say", default=0
    )
    zego_refused_start_counts: bool = _switch(
        "a StartListening refused because of its user uses its Sequence up", default=False
    )
    zego_unheard_stop_code: int = _switch(
        "Code of a StopListening of a user who is not heard (0: success)", default=410001045
    )
    zego_kick_ends: bool = _switch("kicking the AgentUserId ends the instance (1203)", default=True)
    zego_kick_unknown_room_code: int = _switch(
        "Code of KickoutUser about a room with nobody in it (0: success)", default=104
    )

    def length(self, text: str) -> int:
        """Return how many characters a vendor counts in a text."""
        match self.character:
            case "utf16_unit":
                return len(text.encode("utf-16-le", "surrogatepass")) // 2
            case "byte":
                return len(text.encode(errors="surrogatepass"))
            case _:
                return len(text)

    def turn(self, wanted: Mapping[str, Any]) -> list[str]:
        """Set the switches named in `wanted`, all or none; return what is wrong with it."""
        known = {f.name: f for f in fields(self)}
        wrong = [
            f"{name}: expected one of {', '.join(sorted(known))}"
            for name in wanted
            if name not in known
        ]
        for name, value in wanted.items():
            if name in known and (problem := _mismatch(known[name], value)):
                wrong.append(f"{name}: expected {problem}, found {value!r}")
        if not wrong:
            for name, value in wanted.items():
                setattr(self, name, value)
        return wrong

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return each switch with its value, default, choices and meaning."""
        return {
            f.name: {
                "value": getattr(self, f.name),
                "default": f.default,
                "means": f.metadata["means"],
            }
            | ({"choices": list(f.metadata["choices"])} if f.metadata["choices"] else {})
            for f in fields(self)
        }


def _mismatch(switch: Any, value: Any) -> str | None:
    """Return what was expected of `value`, or None if it fits."""
    choices = switch.metadata["choices"]
    if choices:
        return None if value in choices else " or ".join(choices)
    if isinstance(switch.default, bool):
        return None if isinstance(value, bool) else "true or false"
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return None if fits else "an integer from 0"
