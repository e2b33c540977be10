"""The night of which docs/sql.md asks its questions: who called, what broke, and when.

Each chapter is one moment. Applications and people write SQL, the vendor answers as said here, and
the rest is the daemon's own doing. It is ten past two when the questions are asked.
"""

from dataclasses import replace
from datetime import timedelta
from typing import Final

from orchestrator.core.fact import Event, Fact
from orchestrator.core.model import Verb
from orchestrator.core.outcome import Denied, Done, Gone, Indefinite, Refused
from orchestrator.core.turn import TurnOutcome, TurnReason
from orchestrator.daemon.claim import Tickets
from orchestrator.store import accounts, call_minutes, llm_tasks, llm_turns
from orchestrator.store.columns import write_json
from orchestrator.store.engine import Connection
from orchestrator.store.engine import now as database_now
from orchestrator.store.llm_turns import Turn
from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO
from tests.store.duty import Duty

SPECS: Final = {"volcengine": VOLCENGINE.spec, "tencent": TENCENT.spec, "zego": ZEGO.spec}

LOST: Final = Indefinite(code="Timeout", message="no answer within 5 s")

NO_SLOTS: Final[Tickets] = {("tencent", Verb.START): []}
"""What a claim has in hand when the account's slots of this second are gone."""


def task(number: int, account: str, customer: str, **literals: str) -> str:
    """Return the INSERT of a call."""
    columns = {
        "id": f"'call-{number}'",
        "account": f"'{account}'",
        "room_id": f"'room-{number}'",
        "user_id": f"'user-{number}'",
        "labels": f"""'{{"customer": "{customer}"}}'""",
        "spec": f"'{write_json(SPECS[account])}'",
        **literals,
    }
    names, values = ", ".join(columns), ", ".join(columns.values())
    return f"INSERT INTO agent_task ({names}) VALUES ({values})"  # noqa: S608 - a scenario's own words


async def tell(duty: Duty) -> None:
    """Let the night go by, up to ten past two."""
    await _the_evening(duty)
    await _half_past_one(duty)
    await _before_two(duty)
    await _trouble(duty)
    await _the_last_minutes(duty)
    await duty.clock.set("02:10:00")
    await duty.beat()


async def _the_evening(duty: Duty) -> None:
    """A second daemon; a call that goes on all night, and one that is stopped later."""
    await duty.clock.set("00:31")
    await duty.sign_on("orc-2", "app-2", 655)
    await duty.clock.set("00:50")
    await duty.app(task(11, "tencent", "globex"))
    await duty.carry_out()
    await duty.clock.set("01:10")
    await duty.app(task(19, "volcengine", "globex"))
    await duty.carry_out()


async def _half_past_one(duty: Duty) -> None:
    """A stranger's agent is heard of; calls with presses, an owner and a deadline begin."""
    await duty.clock.set("01:20")
    now = await duty.database.read(database_now)
    stranger = Fact(
        key="20260314-1",
        event=Event.STARTED,
        event_at=now,
        vendor_task_id="1912124734000000007",
        name="demo-bot",
        room_id="demo-room",
    )
    await duty.hear("zego", stranger)
    await duty.clock.set("01:22")
    await duty.look_for_orphans()
    await duty.clock.set("01:40")
    await duty.app(task(17, "zego", "acme"))
    await duty.carry_out()
    await duty.app("INSERT INTO task_owner (name, heartbeat_timeout_s) VALUES ('web-2', 30)")
    await duty.app(task(22, "tencent", "initech", owner="'web-2'"))
    await duty.carry_out()
    await duty.clock.set("01:54")
    await duty.app(task(23, "tencent", "acme", stop_at="'2026-03-14 06:00'"))
    await duty.carry_out()


async def _before_two(duty: Duty) -> None:
    """Somebody stops a call; a person gives in a TaskId from a bill."""
    await duty.clock.set("01:58")
    await duty.app("UPDATE agent_task SET desired_state = 'stopped' WHERE id = 'call-19'")
    await duty.carry_out()
    await duty.clock.set("02:00")
    await duty.beat("orc-2")
    await duty.operator(
        "INSERT INTO orphan_task (id, account, vendor_task_id)"
        " VALUES ('bill-7', 'tencent', 'tx-from-the-bill')"
    )
    await duty.look_for_orphans()
    await duty.answer("~bill-7", LOST)


async def _trouble(duty: Duty) -> None:
    """A spec is refused, an account denied, a start lost."""
    await duty.clock.set("02:03")
    await duty.app(task(20, "zego", "acme"))
    unknown = Refused(code="410001009", message="agent not found", request_id="req-zego-20")
    await duty.answer("call-20", unknown)
    await duty.clock.set("02:05")
    await duty.app(task(18, "volcengine", "acme"))
    denied = Denied(code="AccessDenied", message="in arrears", request_id="req-volc-18")
    await duty.answer("call-18", denied)
    await duty.clock.set("02:09")
    await duty.app("UPDATE task_owner SET heartbeat_at = CURRENT_TIMESTAMP WHERE name = 'web-2'")
    await duty.answer("call-18", replace(denied, request_id="req-volc-19"))
    await duty.answer("~bill-7", LOST)
    await duty.carry_out()
    await duty.clock.set("02:09:20")
    await duty.app(task(21, "tencent", "initech"))
    await duty.answer("call-21", LOST)
    await duty.clock.set("02:09:25")
    absent = Gone(code="FailedOperation.TaskNotExist", request_id="req-tx-21")
    await duty.answer("call-21", absent)
    await duty.claim("call-18")


async def _the_last_minutes(duty: Duty) -> None:
    """Starts queue, a press waits for one that is missing, a call is on its way."""
    await duty.clock.set("02:09:30")
    await duty.app(
        task(25, "tencent", "globex", priority="5") + ";" + task(26, "tencent", "globex")
    )
    for id_ in ("call-25", "call-26"):
        await duty.claim(id_, tickets=NO_SLOTS)
    await duty.clock.set("02:09:40")
    await duty.app(_press("press-5", 5))
    await duty.press(Done(request_id="req-zego-5"))
    await duty.clock.set("02:09:50")
    await duty.app(_press("press-7", 7))
    await duty.speaker.claim()
    await duty.database.write(_observe)
    await duty.database.write(_talk)
    await duty.clock.set("02:09:58")
    await duty.app(task(24, "zego", "initech"))
    await duty.claim("call-24")


def _talk(connection: Connection) -> None:
    """Write what call-17 asked the gateway for: an answer, an interruption, a fallback."""
    now = database_now(connection)
    llm_tasks.note(connection, [llm_tasks.Told(task_id="call-17", account="zego", upstream="main")])
    llm_tasks.note_talk(connection, {"call-17": now - timedelta(seconds=20)})
    turn = Turn(
        at=now - timedelta(seconds=95),
        task_id="call-17",
        account="zego",
        incarnation=1,
        agent_id="orcabcde0000000000000005",
        round="4711",
        try_=1,
        upstream="main",
        is_fallback=False,
        outcome=TurnOutcome.ANSWERED,
        reason=None,
        first_token_ms=380,
        total_ms=2_140,
        prompt_tokens=412,
        completion_tokens=58,
        finish_reason="stop",
        user_text=None,
        agent_text=None,
    )
    interrupted = replace(
        turn,
        at=now - timedelta(seconds=60),
        round="4712",
        outcome=TurnOutcome.INTERRUPTED,
        first_token_ms=410,
        total_ms=900,
        prompt_tokens=None,
        completion_tokens=None,
        finish_reason=None,
    )
    rescued = replace(
        turn,
        at=now - timedelta(seconds=20),
        round="4713",
        upstream="spare",
        is_fallback=True,
        reason=TurnReason.NO_WORD.value,
        first_token_ms=4_290,
        total_ms=5_870,
    )
    llm_turns.add(connection, [turn, interrupted, rescued])


def _press(id_: str, sequence: int) -> str:
    return (
        "INSERT INTO agent_command (id, task_id, kind, sequence)"  # noqa: S608 - a scenario's own words
        f" VALUES ('{id_}', 'call-17', 'start_listening', {sequence})"
    )


def _observe(connection: Connection) -> None:
    """Write what a daemon tells of its accounts now and then: calls, clocks, breakers."""
    now = database_now(connection)
    minute = now - timedelta(seconds=70)
    counted = [
        ("tencent", "StartAIConversation", 9, 41, 1),
        ("tencent", "StartAIConversation", 16, 3, 1),
        ("zego", "CreateAgentInstance", 10, 12, 1),
        ("zego", "SendAgentInstanceLLM", 23, 4, 4),
    ]
    sums = [
        call_minutes.Sum(
            account=account,
            action=action,
            minute=minute,
            bucket=bucket,
            calls=calls,
            failures=failures,
        )
        for account, action, bucket, calls, failures in counted
    ]
    call_minutes.add(connection, sums)
    seen = [("tencent", None, 40), ("volcengine", None, -120), ("zego", "open", 4_300)]
    observed = [
        accounts.Observed(account=account, breaker=breaker, clock_offset_ms=offset)
        for account, breaker, offset in seen
    ]
    accounts.observe(connection, observed, now)
    accounts.recount(connection, [account for account, _, _ in seen])
