"""Who is notified of what on Postgres, and who is left in peace."""

import asyncpg
import pytest

from tests.store.rows import COMMAND, TASK, update

pytestmark = pytest.mark.anyio

Connection = asyncpg.Connection
CHANNELS = ("orchestrator_wake", "orchestrator_status", "orchestrator_command")

DAEMON = (
    "INSERT INTO daemon (id, name, host, pid, version, wake, asleep, accounts)"
    " VALUES ('d', 'd', 'h', 1, '0', '{wake}', {asleep}, '[]')"
)
ASLEEP = DAEMON.format(wake="notify", asleep="true")
WAKE = ("orchestrator_wake", "")
CONTROL = "INSERT INTO account_control (account) VALUES ('acc')"


class Listener:
    """What one connection heard while another ran statements."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.heard: list[tuple[str, str]] = []

    def note(self, _connection: object, _pid: int, channel: str, payload: object) -> None:
        self.heard.append((channel, str(payload)))

    async def hear(self, *statements: str) -> list[tuple[str, str]]:
        """Return what the statements, one transaction, notified."""
        ears = await asyncpg.connect(self.url)
        for channel in CHANNELS:
            await ears.add_listener(channel, self.note)
        mouth = await asyncpg.connect(self.url)
        async with mouth.transaction():
            for statement in statements:
                await mouth.execute(statement)
        await mouth.close()
        await ears.execute("SELECT 1")  # notifications come before the answer
        for channel in CHANNELS:
            await ears.remove_listener(channel, self.note)
        await ears.close()
        heard, self.heard = self.heard, []
        return heard


@pytest.fixture
def listener(postgres_url: str) -> Listener:
    return Listener(postgres_url)


@pytest.mark.parametrize("statement", [TASK, CONTROL])
async def test_a_daemon_that_sleeps_is_woken_once(listener: Listener, statement: str) -> None:
    assert await listener.hear(ASLEEP, statement, update("agent_task", "restart_token = 'x'")) == [
        WAKE
    ]


@pytest.mark.parametrize(("wake", "asleep"), [("notify", "false"), ("poll", "true")])
async def test_nobody_is_notified_for_a_daemon_that_does_not_listen(
    listener: Listener, wake: str, asleep: str
) -> None:
    assert await listener.hear(DAEMON.format(wake=wake, asleep=asleep), TASK, CONTROL) == []


async def test_a_heartbeat_wakes_nobody(listener: Listener) -> None:
    await listener.hear(ASLEEP, TASK, CONTROL)
    assert await listener.hear(update("agent_task", "heartbeat_at = now()")) == []
    assert await listener.hear(update("agent_task", "priority = 2, labels = '{}'")) == []
    assert await listener.hear(update("account_control", "paused = true")) == [WAKE]


async def test_a_command_wakes(listener: Listener) -> None:
    await listener.hear(ASLEEP, TASK)
    assert await listener.hear(COMMAND) == [WAKE]


STATUS = {
    "phase = 'stopped'": True,
    "reason = 'Busy'": True,
    "confirmed_at = now()": True,
    "reason = NULL": False,
    "due_at = now(), version = 5, waiting_for = 'retry'": False,
}


@pytest.mark.parametrize(("assignment", "told"), STATUS.items())
async def test_what_applications_listen_for(
    listener: Listener, assignment: str, told: bool
) -> None:
    await listener.hear(TASK)
    expected = [("orchestrator_status", "t1")] if told else []
    assert await listener.hear(update("agent_status", assignment)) == expected


async def test_a_settled_command_is_told_once(listener: Listener) -> None:
    await listener.hear(TASK, COMMAND)
    assert await listener.hear(update("agent_command", "state = 'sending'")) == []
    assert await listener.hear(update("agent_command", "state = 'done'")) == [
        ("orchestrator_command", "c1")
    ]
    assert await listener.hear(update("agent_command", "message = 'x'")) == []
