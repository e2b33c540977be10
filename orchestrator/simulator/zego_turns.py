"""Turns of a ZEGO conversation: who is heard, who speaks, and the Sequence of each user's presses.

Source: the vendor's pages start-listening, stop-listening and advanced/interaction-mode, and the
return codes. Knows instances only by what it keeps for each, and no wire.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from orchestrator.simulator.questions import Unheard
from orchestrator.simulator.switches import Switches
from orchestrator.simulator.wire import Fields, Refusal, is_text
from orchestrator.simulator.world import Agent, User

WALKIE_TALKIE = 2

SPEECH_LIMIT = 300

_FLAG = (False, True)
_SPOKEN_CHOICES: Mapping[str, tuple[object, ...]] = {
    "Priority": ("Low", "Medium", "High"),
    "SamePriorityOption": ("ClearAndInterrupt", "Enqueue"),
}
_SAY_CHOICES = {**_SPOKEN_CHOICES, "AddHistory": _FLAG, "InterruptMode": (0, 1)}
_PROMPT_CHOICES = {**_SPOKEN_CHOICES, "AddQuestionToHistory": _FLAG, "AddAnswerToHistory": _FLAG}
"""What may stand in a field, if it is there."""


@dataclass(slots=True, kw_only=True)
class Talk:
    """The conversation of one instance."""

    agent: Agent
    mode: int
    """CommunicationMode."""
    listening_to: str | None = None
    speaks_until: datetime | None = None
    drains_until: datetime | None = None
    last_sequence: dict[str, int] = field(default_factory=dict)
    last_action: dict[str, str] = field(default_factory=dict)

    def status(self, now: datetime) -> str:
        """Return the status as QueryAgentInstanceStatus shows it."""
        if self.listening_to is not None:
            return "LISTENING"
        speaks = self.speaks_until is not None and now < self.speaks_until
        return "SPEAKING" if speaks else "IDLE"


def begin_talk(agent: Agent, mode: int) -> Talk:
    """Return the conversation of an instance that has just been created.

    Rounds ascend from a large number, by the pattern of the vendor's samples.
    """
    agent.round = int(agent.started_at.timestamp()) % 1_000_000 * 1000
    return Talk(agent=agent, mode=mode)


class Turns:
    """What the turn actions do to a conversation."""

    def __init__(self, switches: Switches) -> None:
        self._switches = switches

    def start_listening(self, talk: Talk, body: Fields, user: User, now: datetime) -> int:
        """Open the user's microphone; return the round.

        Raises:
            Refusal: the mode is another, the Sequence stale, or the user not there or silent.
        """
        user_id, sequence = _press(talk, body)
        self._refuse_stale(talk, user_id, sequence, "start")
        try:
            _require_publishing(user)
        except Refusal:
            if self._switches.zego_refused_start_counts:
                _take(talk, user_id, sequence, "start")
            raise
        _take(talk, user_id, sequence, "start")
        if talk.listening_to == user_id:
            return talk.agent.round
        if talk.listening_to is not None:
            raise Refusal("410001044", "start listening failed: another user is heard")
        talk.listening_to = user_id
        talk.speaks_until = now
        return self._next_round(talk)

    def stop_listening(self, talk: Talk, body: Fields, user: User, now: datetime) -> int:
        """Close the user's microphone and let the agent answer; return the round.

        Raises:
            Refusal: the mode is another, the Sequence stale, or the user not there or not heard.
        """
        user_id, sequence = _press(talk, body)
        _require_choices(body, {"CancelFlag": _FLAG})
        self._refuse_stale(talk, user_id, sequence, "stop")
        _take(talk, user_id, sequence, "stop")
        if not user.present:
            raise Refusal("410001016", "the user does not exist in the room")
        if talk.listening_to != user_id:
            return self._stop_unheard(talk)
        talk.listening_to = None
        if not body.get("CancelFlag"):
            self._speak(talk, now)
        return talk.agent.round

    def _stop_unheard(self, talk: Talk) -> int:
        code = self._switches.zego_unheard_stop_code
        if code:
            raise Refusal(str(code), "stop listening failed: the user is not heard")
        return talk.agent.round

    def say(self, talk: Talk, body: Fields, now: datetime) -> int:
        """Let the agent speak (SendAgentInstanceTTS); return the round.

        Raises:
            Refusal: the text is too long, what goes with it is wrong, or the agent listens.
        """
        text = _text(body)
        if self._switches.length(text) > SPEECH_LIMIT:
            raise Refusal("410000003", f"Text is longer than {SPEECH_LIMIT} characters")
        _require_choices(body, _SAY_CHOICES)
        return self._answer(talk, body, now)

    def prompt(self, talk: Talk, body: Fields, now: datetime) -> int:
        """Let the agent answer (SendAgentInstanceLLM); return the round.

        Raises:
            Refusal: the text or what goes with it is wrong, or the agent listens.
        """
        _text(body)
        if not isinstance(body.get("SystemPrompt", ""), str):
            raise Refusal("410000003", "SystemPrompt is invalid")
        _require_choices(body, _PROMPT_CHOICES)
        return self._answer(talk, body, now)

    def _answer(self, talk: Talk, body: Fields, now: datetime) -> int:
        """Begin a round in which the agent speaks, unless it listens."""
        bypasses = body.get("Priority") == "High" and self._switches.zego_high_while_listening
        if talk.listening_to is not None and not bypasses:
            raise Refusal("410001013", "the agent is listening")
        self._speak(talk, now)
        return self._next_round(talk)

    def hear(self, talk: Talk, now: datetime) -> int:
        """Let the user be heard; return the round. One press of a walkie-talkie is one round.

        Raises:
            Unheard: it is a walkie-talkie, and nobody presses its button.
        """
        if talk.mode != WALKIE_TALKIE:
            self._speak(talk, now)
            return self._next_round(talk)
        if talk.listening_to is None:
            raise Unheard("a walkie-talkie hears the user from StartListening to StopListening")
        return talk.agent.round

    def interrupt(self, talk: Talk, now: datetime) -> int:
        """Silence the agent; return the round."""
        talk.speaks_until = now
        return talk.agent.round

    def _speak(self, talk: Talk, now: datetime) -> None:
        talk.speaks_until = now + timedelta(milliseconds=self._switches.zego_answer_ms)

    def _next_round(self, talk: Talk) -> int:
        talk.agent.round += 1
        return talk.agent.round

    def _refuse_stale(self, talk: Talk, user_id: str, sequence: int | None, action: str) -> None:
        last = talk.last_sequence.get(user_id)
        if sequence is None or last is None or sequence > last:
            return
        if sequence == last and self._takes_equal(talk, user_id, action):
            return
        raise Refusal("410001043", "the Sequence is stale, the request was ignored")

    def _takes_equal(self, talk: Talk, user_id: str, action: str) -> bool:
        match self._switches.zego_equal_sequence:
            case "accept":
                return True
            case "legacy_pairing":
                return action == "stop" and talk.last_action.get(user_id) == "start"
            case _:
                return False


def _press(talk: Talk, body: Fields) -> tuple[str, int | None]:
    """Return whose press it is and its Sequence, if it has one."""
    if talk.mode != WALKIE_TALKIE:
        raise Refusal("410001042", "the instance is not in walkie-talkie mode")
    user_id, sequence = body.get("UserId") or talk.agent.user_id, body.get("Sequence")
    if not is_text(user_id, longest=32, extra="-_"):
        raise Refusal("410000003", "UserId is invalid")
    if sequence is not None and type(sequence) is not int:
        raise Refusal("410000003", "Sequence is invalid")
    return str(user_id), sequence


def _text(body: Fields) -> str:
    text = body.get("Text")
    if not isinstance(text, str) or not text:
        raise Refusal("410000003", "Text is invalid")
    return text


def _require_choices(body: Fields, choices: Mapping[str, tuple[object, ...]]) -> None:
    for name, allowed in choices.items():
        # By type too: in JSON, as here, true is no number.
        if name in body and (type(body[name]), body[name]) not in [(type(a), a) for a in allowed]:
            raise Refusal("410000003", f"{name} is invalid")


def _take(talk: Talk, user_id: str, sequence: int | None, action: str) -> None:
    # A press without a Sequence is taken as it comes and moves none.
    if sequence is not None:
        talk.last_sequence[user_id] = sequence
    talk.last_action[user_id] = action


def _require_publishing(user: User) -> None:
    if not user.present:
        raise Refusal("410001016", "the user does not exist in the room")
    if not user.publishing:
        raise Refusal("410001046", "the user is not publishing")
