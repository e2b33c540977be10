"""The `/_sim/` routes: look at the simulated world, and steer it. No vendor has these.

Rule 1: what is wrong with a request is said in JSON, with what was expected; nothing is half done.
Rule 2: no key is ever shown.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any

from aiohttp import web

from orchestrator.simulator.courier import CALLBACK, Courier
from orchestrator.simulator.faults import OF_CALLBACKS, OF_CALLS, Fault, Kind
from orchestrator.simulator.keys import Keys, TencentKeys, VolcengineKeys, ZegoKeys
from orchestrator.simulator.questions import Unheard, Utterance
from orchestrator.simulator.simulation import Simulator
from orchestrator.simulator.speech import Speech
from orchestrator.simulator.tencent import NUMERIC, STRING
from orchestrator.simulator.wire import parse_object
from orchestrator.simulator.world import Agent, RoomKey, User, Vendor, Why

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_ENDS = {why.value: why for why in (Why.IDLE, Why.KICKED, Why.FAULT)}
_MOVES = ("join", "leave", "publish", "unpublish")


class _Wrong(Exception):  # noqa: N818 - it is the request that is wrong
    """A request that cannot be understood."""

    def __init__(self, where: str, expected: str, status: int = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(where)
        self.where = where
        self.expected = expected
        self.status = status


def add_control_routes(
    app: web.Application, simulator: Simulator, courier: Courier, speech: Speech
) -> None:
    """Add the routes below `/_sim/` to the application."""
    control = _Control(simulator, courier, speech)
    app.router.add_get("/_sim/agents", _guarded(control.show_agents))
    app.router.add_post("/_sim/agents/{id}/end", _guarded(control.end_agent))
    app.router.add_post("/_sim/agents/{id}/say", _guarded(control.say))
    app.router.add_get("/_sim/turns", _guarded(control.show_turns))
    app.router.add_get("/_sim/calls", _guarded(control.show_calls))
    app.router.add_post("/_sim/users", _guarded(control.move_user))
    app.router.add_get("/_sim/faults", _guarded(control.show_faults))
    app.router.add_post("/_sim/faults", _guarded(control.set_fault))
    app.router.add_get("/_sim/callbacks", _guarded(control.show_callbacks))
    app.router.add_post("/_sim/callbacks", _guarded(control.redirect_callbacks))
    app.router.add_get("/_sim/switches", _guarded(control.show_switches))
    app.router.add_post("/_sim/switches", _guarded(control.turn_switches))
    app.router.add_post("/_sim/reset", _guarded(control.reset))


class _Control:
    """The handlers of the routes."""

    def __init__(self, simulator: Simulator, courier: Courier, speech: Speech) -> None:
        self._simulator = simulator
        self._courier = courier
        self._speech = speech

    async def show_agents(self, request: web.Request) -> web.Response:
        """GET /_sim/agents: all agents ever; `?account=`, `?vendor=`, `?live=true` narrow it."""
        now = self._simulator.world_now()
        agents = [
            shown
            for shown in (_show_agent(agent, now) for agent in self._simulator.world.agents)
            if all(_as_text(shown.get(k)) == v for k, v in request.query.items())
        ]
        return web.json_response({"agents": agents})

    async def end_agent(self, request: web.Request) -> web.Response:
        """POST /_sim/agents/<id>/end: let the vendor end it, as idle, kicked or by a fault."""
        body = await _read_object(request)
        why = _ENDS.get(str(body.get("why")))
        if why is None:
            raise _Wrong("why", " or ".join(_ENDS))
        now = self._simulator.world_now()
        agent = self._find_agent(request.match_info["id"])
        self._simulator.world.end(agent, why, now)
        return web.json_response(_show_agent(agent, now))

    async def say(self, request: web.Request) -> web.Response:
        """POST /_sim/agents/<id>/say: the user says something; the answer is the turn."""
        body = await _read_object(request)
        utterance = Utterance(
            text=_text(body, "text"),
            interrupt_after=_chunks(body, "interrupt_after"),
            repeat=_flag(body, "repeat", default=False),
        )
        wait, zombie = _flag(body, "wait", default=True), _flag(body, "zombie", default=False)
        self._simulator.world_now()
        agent = self._find_agent(request.match_info["id"])
        try:
            spoken = await self._speech.say(agent, utterance, zombie=zombie)
        except Unheard as unheard:
            raise _Wrong(agent.id, str(unheard), HTTPStatus.CONFLICT) from unheard
        if wait:
            await spoken.ended.wait()
        return web.json_response(spoken.turn.shown())

    async def show_turns(self, request: web.Request) -> web.Response:
        """GET /_sim/turns: the newest turns after `?since=`, oldest first."""
        turns = self._simulator.turns
        return web.json_response({"turns": turns.since(_since(request)), "last": turns.last})

    async def show_calls(self, request: web.Request) -> web.Response:
        """GET /_sim/calls: the newest calls after `?since=`, and the busiest second of each."""
        since = _since(request)
        worst = [
            {"vendor": vendor, "account": account, "action": action, "calls": calls}
            for (vendor, account, action), calls in sorted(self._simulator.pace.worst().items())
        ]
        calls = self._simulator.calls
        return web.json_response(
            {"calls": calls.since(since), "last": calls.last, "busiest_second": worst}
        )

    async def move_user(self, request: web.Request) -> web.Response:
        """POST /_sim/users: let a human join or leave a room, publish or stop publishing."""
        body = await _read_object(request)
        user_id, move = _text(body, "user_id"), body.get("do")
        rooms = _rooms(self._keys(_text(body, "account")), _text(body, "room_id"))
        if move not in _MOVES:
            raise _Wrong("do", " or ".join(_MOVES))
        now, world = self._simulator.world_now(), self._simulator.world
        shown = User(present=False, publishing=False)
        for key in rooms:
            room = world.room(key)
            shown = self._moved(world.user(room, user_id), move)
            world.place_user(room, user_id, shown, now)
        return web.json_response({"present": shown.present, "publishing": shown.publishing})

    async def show_faults(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's
        """GET /_sim/faults: how many scripted faults are still to come, by action."""
        return web.json_response({"pending": self._simulator.faults.pending()})

    async def set_fault(self, request: web.Request) -> web.Response:
        """POST /_sim/faults: script one for the next n calls, or give it a ratio."""
        body = await _read_object(request)
        if body == {"clear": True}:
            self._simulator.faults.clear()
            return web.json_response({"pending": {}})
        action, fault, n, ratio = (
            _text(body, "action"),
            _fault(body),
            body.get("n"),
            body.get("ratio"),
        )
        if ratio is not None:
            if not _is_number(ratio) or not 0 <= ratio <= 1:
                raise _Wrong("ratio", "a number from 0 to 1")
            self._simulator.faults.set_ratio(action, ratio, fault)
        else:
            self._simulator.faults.script(action, _count({"n": 1 if n is None else n}, "n"), fault)
        return web.json_response({"pending": self._simulator.faults.pending()})

    async def show_callbacks(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's
        """GET /_sim/callbacks: where they go, and the newest attempts, oldest first."""
        attempts = list(self._courier.attempts)
        return web.json_response({"urls": dict(self._courier.urls), "attempts": attempts})

    async def redirect_callbacks(self, request: web.Request) -> web.Response:
        """POST /_sim/callbacks: post an account's callbacks to a URL; an empty one ends them."""
        body = await _read_object(request)
        account, url = _text(body, "account"), body.get("url")
        self._keys(account)
        if not isinstance(url, str) or (url and not url.startswith(("http://", "https://"))):
            raise _Wrong("url", "an http or https URL, or an empty string")
        self._courier.redirect(account, url)
        return web.json_response({"urls": dict(self._courier.urls)})

    async def show_switches(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's
        """GET /_sim/switches: all of them, with what they mean."""
        return web.json_response(self._simulator.switches.describe())

    async def turn_switches(self, request: web.Request) -> web.Response:
        """POST /_sim/switches: set those named, all or none."""
        wrong = self._simulator.switches.turn(await _read_object(request))
        if wrong:
            raise _Wrong("; ".join(wrong), "a JSON object of switches and values")
        return web.json_response(self._simulator.switches.describe())

    async def reset(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's
        """POST /_sim/reset: an empty world, no faults, the switches as at the beginning."""
        self._simulator.reset()
        return web.json_response({"agents": []})

    def _find_agent(self, name: str) -> Agent:
        agents = self._simulator.world.agents
        found = [a for a in agents if name in {a.id, a.handle}]
        if not found:
            raise _Wrong(name, "the id or handle of an agent", HTTPStatus.NOT_FOUND)
        return found[-1]

    def _keys(self, account: str) -> Keys:
        keys = next((k for k in self._simulator.keys if k.account == account), None)
        if keys is None:
            known = ", ".join(k.account for k in self._simulator.keys)
            raise _Wrong("account", f"one of {known}")
        return keys

    def _moved(self, user: User, move: str) -> User:
        match move:
            case "join":
                return User(present=True, publishing=self._simulator.switches.users_publish)
            case "publish":
                return User(present=True, publishing=True)
            case "unpublish":
                return replace(user, publishing=False)
            case _:
                return User(present=False, publishing=False)


def _guarded(handler: Handler) -> Handler:
    """Return the handler with what is wrong with a request turned into JSON."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except _Wrong as wrong:
            error = {"error": wrong.where, "expected": wrong.expected}
            return web.json_response(error, status=wrong.status)

    return answer


def _rooms(keys: Keys, room_id: str) -> list[RoomKey]:
    """Return the rooms of that name: at Tencent a numeric one and a string one."""
    match keys:
        case VolcengineKeys():
            return [RoomKey(Vendor.VOLCENGINE, keys.app_id, room_id)]
        case ZegoKeys():
            return [RoomKey(Vendor.ZEGO, str(keys.app_id), room_id)]
        case TencentKeys():
            app_id = str(keys.sdk_app_id)
            return [RoomKey(Vendor.TENCENT, app_id, room_id, k) for k in (STRING, NUMERIC)]


def _show_agent(agent: Agent, now: datetime) -> dict[str, Any]:
    return {
        "id": agent.id,
        "vendor": agent.vendor,
        "account": agent.account,
        "app_id": agent.app_id,
        "room_id": agent.room.key.room_id,
        "user_id": agent.user_id,
        "agent_user_id": agent.agent_user_id,
        "handle": agent.handle,
        "session_id": agent.session_id,
        "stream_id": agent.stream_id,
        "region": agent.region,
        "version": agent.version,
        "started_at": agent.started_at.isoformat(),
        "joined_at": _iso(agent.joined_at),
        "ended_at": _iso(agent.ended_at),
        "why": agent.why,
        "own_llm": agent.llm is not None,
        "billed_s": agent.billed_s(now),
        "live": agent.is_live,
    }


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


async def _read_object(request: web.Request) -> Mapping[str, Any]:
    body = parse_object(await request.read())
    if body is None:
        raise _Wrong("the body", "a JSON object")
    return body


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise _Wrong(name, "a string")
    return value


def _count(body: Mapping[str, Any], name: str) -> int:
    value = body.get(name)
    if type(value) is not int or value < 1:
        raise _Wrong(name, "an integer from 1")
    return value


def _since(request: web.Request) -> int:
    since = request.query.get("since", "0")
    if not since.isdecimal():
        raise _Wrong("since", "a number, as in `last`")
    return int(since)


def _chunks(body: Mapping[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (type(value) is not int or value < 0):
        raise _Wrong(name, "an integer from 0")
    return value


def _flag(body: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value = body.get(name, default)
    if not isinstance(value, bool):
        raise _Wrong(name, "true or false")
    return value


def _fault(body: Mapping[str, Any]) -> Fault:
    name = body.get("fault")
    kinds = OF_CALLBACKS if body.get("action") == CALLBACK else OF_CALLS
    if name not in kinds:
        raise _Wrong("fault", " or ".join(sorted(kinds)))
    kind = Kind(name)
    code = _text(body, "code") if kind is Kind.CODE else ""
    ms = _count(body, "ms") if kind in {Kind.DELAY, Kind.DELAY_REPLY} else 0
    status = _count({"status": 200} | dict(body), "status")
    return Fault(
        kind=kind, ms=ms, code=code, status=status, message=str(body.get("message", "scripted"))
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
