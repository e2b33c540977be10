"""One run: strangers and rows, then trouble, then calm, then the verdict.

Rule 1: whoever writes finishes what it began before it is calm: what was written is known.
Rule 2: the vendors' world must equal the rows within the bound, and still do so when the last
request that was late on its way has arrived.
"""

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import anyio

from tests.chaos.agreement import Picture, disagreements, left_over, take_picture
from tests.chaos.checkers import Finding, disorder, doubles, overshoot, touched_strangers
from tests.chaos.client import open_client
from tests.chaos.databases import Kind
from tests.chaos.diary import Diary
from tests.chaos.history import tell
from tests.chaos.leaks import Leak, find_leaks, too_long
from tests.chaos.owners import Owners
from tests.chaos.pulse import feel
from tests.chaos.stage import CUSTOMERS, ROWS, Stage, open_stage
from tests.chaos.strangers import Stranger, start_strangers
from tests.chaos.times import Times
from tests.chaos.troubles import Lengths, Troubles
from tests.chaos.users import Users, make_places
from tests.chaos.vendors import Called
from tests.chaos.walkie import Walkie
from tests.chaos.weather import Fate, Weather
from tests.daemon.customers import TENCENT, VOLCENGINE, ZEGO

COLLECT_EVERY_S: Final = 2.0
LOOK_EVERY_S: Final = 0.5
STRANGERS: Final = (
    *(
        Stranger(customer, room, f"stranger-{customer.name}-{number}")
        for customer in (VOLCENGINE, TENCENT)
        for number, room in enumerate((f"room-{customer.name}-0", f"elsewhere-{customer.name}"))
    ),
    Stranger(ZEGO, f"room-{ZEGO.name}-0", "stranger-zego"),
)
"""Beside the first row of each vendor, and in rooms of their own."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is run."""

    kind: Kind
    seed: int
    seconds: float
    """Of trouble; the calm after it comes on top."""
    times: Times
    lengths: Lengths


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What came of it."""

    plan: Plan
    diary: Diary
    picture: Picture
    calls: list[Called]
    leaks: list[Leak]
    findings: list[Finding]
    left: int
    """Rows with an agent at the end that they do not want."""
    unjudged: int
    """Seconds above a limit that were not judged, since the machine stood still."""
    calm_s: float
    """How long it took until the vendors' world equalled the rows."""
    histories: dict[str, str]
    """What happened to the rows concerned."""


async def run_chaos(plan: Plan, folder: Path) -> Verdict:
    """Run a plan with its files under a folder."""
    async with open_stage(plan.kind, folder, plan.times, plan.seed) as stage:
        await _begin(stage)
        lots = Random(plan.seed)
        async with anyio.create_task_group() as watchers, open_client(stage.base.url) as other:
            owners = Owners(Random(lots.random()), other, stage.diary)
            await owners.begin()
            watchers.start_soon(owners.beat)
            watchers.start_soon(feel, stage.vendors, stage.diary)
            watchers.start_soon(_collect, stage)
            await _trouble(plan, stage, owners, lots)
            owners.is_calm = True
            settled_s, findings = await _settle(stage)
            await stage.fleet.stop_all()
            watchers.cancel_scope.cancel()
        await stage.vendors.collect()
        return await _judge(plan, stage, settled_s, findings)


async def _begin(stage: Stage) -> None:
    stage.diary.strangers |= {stranger.name for stranger in STRANGERS}
    await start_strangers(stage.vendors.url, STRANGERS)
    await stage.switch_callbacks_on()
    await stage.fleet.start_all()


async def _trouble(plan: Plan, stage: Stage, owners: Owners, lots: Random) -> None:
    """Let everybody do their worst for as long as the plan says."""
    vendors, diary = stage.vendors, stage.diary
    walkie = Walkie(Random(lots.random()), stage.client, diary)
    users = Users(Random(lots.random()), stage.client, diary, owners, walkie, make_places(ROWS))
    weather = Weather(Random(lots.random()), vendors, CUSTOMERS, plan.times)
    fate = Fate(Random(lots.random()), vendors, diary)
    troubles = Troubles(
        Random(lots.random()), stage.fleet, stage.base, diary, plan.times.lease_s, plan.lengths
    )
    await users.move_in()
    async with anyio.create_task_group() as actors:
        actors.start_soon(users.edit)
        actors.start_soon(weather.change, users.calm)
        actors.start_soon(fate.strike, users.calm)
        await troubles.come(plan.seconds)
        users.calm.set()


async def _collect(stage: Stage) -> None:
    """Fetch the calls before the simulator forgets them, until cancelled."""
    while True:
        await stage.vendors.collect()
        await anyio.sleep(COLLECT_EVERY_S)


async def _settle(stage: Stage) -> tuple[float, list[Finding]]:
    """Wait until both sides agree, then until nothing can come late; return what still differs."""
    began = anyio.current_time()
    findings = await _look_until_agreed(stage, stage.times.calm_s)
    settled_s = anyio.current_time() - began
    if findings:
        return settled_s, findings
    await anyio.sleep(max(0.0, stage.times.horizon_s - settled_s))
    return settled_s, await _look_until_agreed(stage, stage.times.poll_s + stage.times.lease_s)


async def _look_until_agreed(stage: Stage, within_s: float) -> list[Finding]:
    """Look until nothing differs. The time in which the machine stood still does not count."""
    give_up = anyio.current_time() + within_s
    stalls = len(stage.diary.stalls)
    while findings := disagreements(await take_picture(stage.vendors, stage.client), stage.diary):
        stood = sum(stall.seconds for stall in stage.diary.stalls[stalls:])
        if anyio.current_time() > give_up + stood:
            return findings
        await stage.fleet.revive()
        await anyio.sleep(LOOK_EVERY_S)
    return []


async def _judge(plan: Plan, stage: Stage, settled_s: float, disagreed: list[Finding]) -> Verdict:
    diary, calls = stage.diary, stage.vendors.called
    picture = await take_picture(stage.vendors, stage.client)
    leaked = find_leaks(picture.agents, diary, picture.at)
    above = overshoot(calls, diary)
    findings = [
        *disagreed,
        *doubles(picture.agents, diary),
        *touched_strangers(picture.agents, diary),
        *disorder(calls, picture.agents),
        *above.findings,
        *too_long(leaked, plan.times),
        *(Finding("P8", death) for death in diary.deaths),
    ]
    return Verdict(
        plan=plan,
        diary=diary,
        picture=picture,
        calls=calls,
        leaks=leaked,
        findings=findings,
        left=left_over(disagreements(picture, diary)),
        unjudged=above.unjudged,
        calm_s=settled_s,
        histories=await tell(findings, stage, picture),
    )
