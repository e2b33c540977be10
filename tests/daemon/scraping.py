"""A daemon seen through its port for metrics, and a little of everything for it to do."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families
from yarl import URL

from orchestrator.providers.ticket import Ticket, derive_key, sign
from orchestrator.simulator import echo_model
from tests.daemon.application import quoted, update_task
from tests.daemon.customers import CUSTOMERS, TENCENT, ZEGO
from tests.daemon.llm import TOKEN_SECRET, asking
from tests.daemon.posts import Mailbox, Written, tencent
from tests.daemon.running import USER, Daemon, Scene, as_json, until
from tests.daemon.talk import WALKIE, press, release, settled
from tests.ports import unused_port

Labels = frozenset[tuple[str, str]]
Samples = Mapping[tuple[str, Labels], float]
"""Values by the name of the series and its labels."""

TASKS = {customer: f"secret-task-{number}" for number, customer in enumerate(CUSTOMERS)}
NAMED = re.compile(r"secret-task-\d|room-|human")
"""What no label may hold: the ids of tasks, rooms and users of `work`."""


def sample(samples: Samples, name: str, **labels: str) -> float:
    """Return the value of one series."""
    return samples[name, frozenset((key.rstrip("_"), text) for key, text in labels.items())]


@dataclass
class Window:
    """The daemon's port for metrics."""

    daemon: Daemon
    base_url: str
    session: aiohttp.ClientSession

    async def ask(self, path: str, **headers: str) -> tuple[int, str]:
        """Return the status and the body of an answer."""
        async with self.session.get(f"{self.base_url}{path}", headers=headers) as answer:
            return answer.status, await answer.text()

    async def samples(self) -> Samples:
        """Return every series that is shown now."""
        status, text = await self.ask("/metrics")
        assert status == 200, text
        return parse(text)

    async def wait_for(self, name: str, value: float, **labels: str) -> Samples:
        """Wait until a series has a value; return all."""
        key = name, frozenset((key.rstrip("_"), text) for key, text in labels.items())

        async def look() -> Samples | None:
            samples = await self.samples()
            return samples if samples.get(key) == value else None

        async def awaited() -> str:
            return f"{key} to be {value}, found {(await self.samples()).get(key)}"

        return await until(look, awaited)

    async def wait_for_answer(self, path: str, status: int) -> str:
        """Wait until a question is answered so; return the body."""

        async def look() -> str | None:
            found, text = await self.ask(path)
            return text if found == status else None

        async def awaited() -> str:
            return f"{path} to be {status}, found {await self.ask(path)}"

        return await until(look, awaited)


def parse(text: str) -> Samples:
    """Return the series of an exposition; none stands there twice."""
    found = [
        ((one.name, frozenset(one.labels.items())), one.value)
        for family in text_string_to_metric_families(text)
        for one in family.samples
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


@asynccontextmanager
async def open_window(daemon: Daemon) -> AsyncIterator[Window]:
    """Find the port at which a daemon shows its metrics."""

    async def shown() -> str | None:
        lines = daemon.events("showing_metrics")
        return f"http://{lines[0]['host']}:{lines[0]['port']}" if lines else None

    base_url = await until(shown, daemon.describe)
    async with aiohttp.ClientSession() as session:
        yield Window(daemon, base_url, session)


def show_metrics(scene: Scene) -> None:
    """Let daemons that are started from now on show metrics, at any port."""
    scene.settings["metrics"] = {"listen": "127.0.0.1:0"}


def poll_seldom(scene: Scene) -> None:
    """Let no look at a running agent come between two looks of the test."""
    for customer in CUSTOMERS:
        scene.account(customer)["poll_s"] = 3_600


async def work(scene: Scene, mailbox: Mailbox) -> None:
    """Start an agent at every vendor, talk to one, stop another, and be posted to by a liar."""
    for customer, id_ in TASKS.items():
        await scene.ask_for(WALKIE if customer is ZEGO else customer, id_)
    for id_ in TASKS.values():
        await scene.wait(id_, phase="running")
    talking = TASKS[ZEGO]
    await scene.app.write(press(talking, "press-1", 1))
    await settled(scene, "press-1")
    await scene.app.write(release(talking, "release-2", 2))
    await settled(scene, "release-2")
    await scene.app.write(update_task(TASKS[TENCENT], desired_state=quoted("stopped")))
    await scene.wait(TASKS[TENCENT], phase="stopped")
    genuine = tencent(902, "h1", LeaveCode=99)
    assert await mailbox.post(Written(TENCENT.name, genuine.body + b" ", genuine.headers)) == 401
    assert await mailbox.post(Written("secret-task-9", b"{}")) == 404
    assert await mailbox.post(Written('a"b\nc', b"{}")) == 404


# --- turns at the LLM gateway

ECHO, BREAKS, DOWN, NONE = "echo", "breaks", "down", "none"
"""Upstreams: one that answers, one that breaks off in the middle, one in whose place the first
answers, and one that says nothing."""
TALKS = {
    upstream: f"secret-task-{number}"
    for number, upstream in enumerate((ECHO, BREAKS, DOWN, NONE), len(TASKS))
}
"""The task whose agent asks each."""


def open_gateway(scene: Scene) -> None:
    """Let daemons that are started from now on have a gateway, and the simulator's model behind."""
    place = f"127.0.0.1:{unused_port()}"
    scene.settings["llm_gateway"] = {
        "listen": place,
        "public_url": f"http://{place}",
        "token_secret": TOKEN_SECRET,
    }
    model = f"{scene.vendors.url}{echo_model.PATH}"
    urls = {
        ECHO: model,
        BREAKS: f"{model}/fault=cut",
        DOWN: f"{model}/fault=status_500",
        NONE: f"{model}/fault=status_500",
    }
    upstreams = {name: {"url": url, "api_key": echo_model.API_KEY} for name, url in urls.items()}
    upstreams[DOWN]["fallback"] = ECHO
    scene.settings["llm_upstreams"] = upstreams


async def converse(scene: Scene, window: Window) -> Samples:
    """Let agents ask each upstream, one of them after its end as well, and a liar; return all."""
    for upstream, id_ in TALKS.items():
        await scene.ask_for(ZEGO, id_, spec=as_json(asking(ZEGO, upstream)))
    for upstream, id_ in TALKS.items():
        await scene.wait(id_, phase="running")
        assert await ask_for_words(scene, window, upstream) == 200
    assert await ask_for_words(scene, window, ECHO, secret="fake-other-secret") == 401
    await scene.app.write(update_task(TALKS[ECHO], desired_state=quoted("stopped")))
    await scene.wait(TALKS[ECHO], phase="stopped")
    assert await ask_for_words(scene, window, ECHO) == 200
    ended = {"account": ZEGO.name, "upstream": ECHO, "outcome": "ended"}
    return await window.wait_for("orchestrator_llm_turns_total", 1, **ended)


async def ask_for_words(
    scene: Scene, window: Window, upstream: str, secret: str = TOKEN_SECRET
) -> int:
    """Ask as the agent of an upstream's task, with a token made of `secret`; return the status."""
    id_ = TALKS[upstream]
    agent = (await scene.ledger(id_))[-1]
    ticket = Ticket(
        upstream=upstream,
        account=ZEGO.name,
        room_id=f"room-{id_}",
        user_id=USER,
        task_id=id_,
        incarnation=agent["incarnation"],
        agent_id=agent["id"],
    )
    url = URL(f"{scene.settings['llm_gateway']['public_url']}{ticket.path}", encoded=True)
    token = sign(ticket, derive_key(secret, ZEGO.name))
    question = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    headers = {"Authorization": f"Bearer {token}"}
    async with window.session.post(url, json=question, headers=headers) as answer:
        await answer.read()
        return answer.status
