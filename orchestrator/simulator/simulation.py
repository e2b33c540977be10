"""The simulated vendors as one thing: accounts, world, faults, pace and switches. No I/O.

Two clocks: signatures, rate limits and the call log go by the clock given; the world (idle times,
delays, bills) by the same clock run `speed` times as fast from the simulator's beginning.
"""

import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from orchestrator.clock import utc_now
from orchestrator.simulator import tencent_llm, volcengine_llm, zego_llm
from orchestrator.simulator.calls import CallLog
from orchestrator.simulator.faults import Fault, Faults
from orchestrator.simulator.keys import Keys, TencentKeys, VolcengineKeys, ZegoKeys
from orchestrator.simulator.pace import Pace
from orchestrator.simulator.questions import Question, Request, Unheard, Utterance
from orchestrator.simulator.switches import Switches
from orchestrator.simulator.tencent import Tencent
from orchestrator.simulator.turns import Turn, TurnLog
from orchestrator.simulator.volcengine import Volcengine
from orchestrator.simulator.wire import Answer, Call, VendorApi
from orchestrator.simulator.world import Agent, Listener, Vendor, Why, World
from orchestrator.simulator.zego import Zego


class Simulator:
    """Three vendors and their world.

    Args:
        keys: the accounts they accept.
        seed: of the faults by ratio, and of what users say by themselves.
        speed: how many seconds of the world pass in one of the clock's.
        clock: tells the time, UTC.
        switches: what the documents leave open; the defaults if not given.
    """

    def __init__(
        self,
        keys: Sequence[Keys],
        *,
        seed: int = 0,
        speed: float = 1.0,
        clock: Callable[[], datetime] = utc_now,
        switches: Switches | None = None,
    ) -> None:
        _require_one_secret_each(keys)
        self.keys = tuple(keys)
        self.clock = clock
        self.faults = Faults(seed)
        self.seed = seed
        self._lots = random.SystemRandom()
        self._speed = speed
        self._initial = replace(switches) if switches is not None else Switches()
        self.switches = replace(self._initial)
        self._listeners: list[Listener] = []
        self.reset()

    def reset(self) -> None:
        """Begin anew: an empty world, no faults, calls or turns, the switches as at first."""
        self._began = self.clock()
        self.switches.turn(
            {name: shown["value"] for name, shown in self._initial.describe().items()}
        )
        self.faults.clear()
        self.pace = Pace()
        self.calls = CallLog()
        self.turns = TurnLog()
        self.world = World(self.switches)
        for listener in self._listeners:
            self.world.listen(listener)
        self._vendors: Mapping[Vendor, VendorApi] = {
            Vendor.VOLCENGINE: Volcengine(
                [k for k in self.keys if isinstance(k, VolcengineKeys)], self.world, self.pace
            ),
            Vendor.TENCENT: Tencent(
                [k for k in self.keys if isinstance(k, TencentKeys)], self.world, self.pace
            ),
            Vendor.ZEGO: Zego(
                [k for k in self.keys if isinstance(k, ZegoKeys)], self.world, self.pace
            ),
        }

    def listen(self, listener: Listener) -> None:
        """Be told of every agent that joins or ends, in this world and those after a reset."""
        self._listeners.append(listener)
        self.world.listen(listener)

    def real_s(self, world_s: float) -> float:
        """Return how many seconds of the clock so many of the world's are."""
        return world_s / self._speed

    def world_time(self, at: datetime) -> datetime:
        """Return what the world's clock shows when the wall clock shows `at`."""
        if self._speed == 1.0:
            return at
        return self._began + (at - self._began) * self._speed

    def world_now(self) -> datetime:
        """Return the world's time, after letting everything happen that is due."""
        now = self.world_time(self.clock())
        self.world.advance(now)
        return now

    def listeners(self) -> list[Agent]:
        """Return the agents in a room whose LLM is the customer's."""
        rooms = self.world.rooms.values()
        agents = (agent for room in rooms for agent in room.agents.values())
        return [agent for agent in agents if agent.in_room and agent.llm is not None]

    def begin_turn(
        self, agent: Agent, utterance: Utterance, *, zombie: bool
    ) -> tuple[Turn, Request]:
        """Let the agent's user say something; return the turn, and what the vendor asks the LLM.

        Args:
            agent: who is spoken to.
            utterance: what is said.
            zombie: an agent that has ended hears it all the same.

        Raises:
            Unheard: with the reason.
        """
        self._require_ears(agent, zombie=zombie)
        at = self.clock()
        question = Question(
            text=utterance.text,
            round=self._vendors[agent.vendor].hear(agent, self.world_time(at)),
            request_id=str(uuid.UUID(int=self._lots.getrandbits(128), version=4)),
            at=at,
        )
        turn = Turn(
            seq=self.turns.next_seq(),
            at=at,
            vendor=agent.vendor,
            account=agent.account,
            agent=agent.id,
            handle=agent.handle,
            room_id=agent.room.key.room_id,
            user_id=agent.user_id,
            round=question.round,
            request_id=question.request_id,
            zombie=not agent.is_live,
            said=question.text,
        )
        self.turns.add(turn)
        return turn, _WRITE_REQUEST[agent.vendor](agent, question)

    def _require_ears(self, agent: Agent, *, zombie: bool) -> None:
        if agent.llm is None:
            raise Unheard("the agent has no LLM of the customer's to ask")
        if not agent.is_live:
            if not zombie:
                raise Unheard("the agent has ended; with zombie it speaks all the same")
            return
        user = self.world.user(agent.room, agent.user_id)
        if not agent.in_room:
            raise Unheard("the agent is not in the room")
        if not (user.present and user.publishing):
            raise Unheard("the agent's user is not in the room, or publishes nothing")

    def serve(self, call: Call) -> Answer:
        """Let the vendor do what the call asks."""
        self.world.advance(call.world_at)
        return self._vendors[call.vendor].serve(call)

    def serve_stillborn(self, call: Call) -> Answer:
        """Let the vendor do what the call asks, and end whatever agent that started."""
        before = len(self.world.agents)
        answer = self.serve(call)
        for agent in self.world.agents[before:]:
            self.world.end(agent, Why.FAULT, call.world_at)
        return answer

    def throttle(self, call: Call) -> Answer:
        """Let the vendor say that there are too many calls."""
        vendor = self._vendors[call.vendor]
        return vendor.refuse(call, vendor.throttled(call))

    def refuse(self, call: Call, fault: Fault) -> Answer:
        """Let the vendor answer with the code of a scripted fault."""
        return self._vendors[call.vendor].refuse(call, fault.refusal())


_WRITE_REQUEST: Mapping[Vendor, Callable[[Agent, Question], Request]] = {
    Vendor.VOLCENGINE: volcengine_llm.write_request,
    Vendor.TENCENT: tencent_llm.write_request,
    Vendor.ZEGO: zego_llm.write_request,
}


def _require_one_secret_each(keys: Sequence[Keys]) -> None:
    """Accounts that share a key id, or an AppId, must share the secret: one of them would fail."""
    secrets: dict[str, str] = {}
    for name, secret in map(_named_secret, keys):
        if secrets.setdefault(name, secret) != secret:
            raise ValueError(f"two accounts have the same {name} and different secrets")


def _named_secret(keys: Keys) -> tuple[str, str]:
    """Return what a call is recognised by, and the secret that must sign it."""
    match keys:
        case VolcengineKeys():
            return f"access_key_id {keys.access_key_id}", keys.secret_access_key
        case TencentKeys():
            return f"secret_id {keys.secret_id}", keys.secret_key
        case ZegoKeys():
            return f"app_id {keys.app_id}", keys.server_secret
