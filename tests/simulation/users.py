"""The application: one user for each row, who changes its mind at the worst of times."""

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from orchestrator.core.model import RestartPolicy, Task, What
from tests.simulation.vendors import Vendor

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(slots=True, kw_only=True)
class User:
    """Writes one `agent_task`, by its id, and sometimes lets the agent die at the vendor."""

    task_id: str
    account: str
    vendor: Vendor
    world: "World"
    patience: int
    """How many times longer than others this user waits between two edits."""
    edits: int = field(default=0)

    def begin(self) -> None:
        self.world.at(self.world.now + self.world.lots_between(0, 3), self._insert)

    def _live(self) -> None:
        """Do something, and again after a while, until the quiet time begins."""
        if self.world.is_quiet:
            return
        self._edit()
        lots = self.world.lots
        pause = lots.choice((0.01, 0.3, 3, 12, 30, 60)) * self.patience
        self.world.at(self.world.now + self.world.lots_between(0, pause), self._live)

    def _edit(self) -> None:
        task, lots = self._task, self.world.lots
        if task is None:
            self._insert()
            return
        edits = (
            (30, self._flip),
            (12, self._delete),
            (14, self._respec),
            (10, self._restart),
            (8, self._set_deadline),
            (5, self._set_heartbeat),
            (5, self._set_start_by),
            (8, self._delay_start),
            (6, self._choose_policy),
            (12, self._die),
        )
        (edit,) = lots.choices([e for _, e in edits], weights=[w for w, _ in edits])
        edit(task, self.world.clock)

    @property
    def _task(self) -> Task | None:
        return self.world.store.tasks.get(self.task_id)

    def _write(self, task: Task | None, what: What | None) -> None:
        self.world.tell(f"user: {what or 'heartbeat'} of {self.task_id}")
        self.world.store.write_task(self.task_id, task, what, self.world.clock)
        if what is None:
            return
        for daemon in self.world.daemons:
            daemon.wake(self.world.lots_between(0, 0.01))

    def _insert(self) -> None:
        self.edits += 1
        task = Task(
            id=self.task_id,
            account=self.account,
            room_id=f"room{self.edits}",
            user_id=self.task_id,
            running=True,
            spec={"v": self.edits},
            restart_policy=self.world.lots.choice(list(RestartPolicy)),
            created_at=self.world.clock,
        )
        self._write(task, What.INSERT)
        self.world.at(self.world.now + self.world.lots_between(0, 30), self._live)

    def _delete(self, _: Task, __: datetime) -> None:
        self._write(None, What.DELETE)
        if self.world.lots.random() < 0.5:
            self.world.at(self.world.now, lambda: None if self._task else self._insert())

    def _flip(self, task: Task, _: datetime) -> None:
        what = What.STOP if task.running else What.RUN
        self._write(replace(task, running=not task.running), what)
        if task.running and self.world.lots.random() < 0.4:
            self._write(task, What.RUN)

    def _respec(self, task: Task, _: datetime) -> None:
        self.edits += 1
        self._write(replace(task, spec={"v": self.edits}), What.SPEC)

    def _restart(self, task: Task, _: datetime) -> None:
        self._write(task, What.RESTART)

    def _set_deadline(self, task: Task, now: datetime) -> None:
        at = now + self.world.lots_between(0, 60)
        self._write(replace(task, stop_at=None if task.stop_at else at), What.TIMING)

    def _set_heartbeat(self, task: Task, now: datetime) -> None:
        if task.heartbeat_timeout is not None:
            self._write(replace(task, heartbeat_timeout=None), What.TIMING)
            return
        timeout = timedelta(seconds=20)
        self._write(replace(task, heartbeat_timeout=timeout, heartbeat_at=now), What.TIMING)
        self._beat()

    def _beat(self) -> None:
        """Write a heartbeat, which fires no trigger; some come too late."""
        task = self._task
        if task is None or task.heartbeat_timeout is None:
            return
        self._write(replace(task, heartbeat_at=self.world.clock), None)
        if not self.world.is_quiet:
            self.world.at(self.world.now + self.world.lots_between(1, 21), self._beat)

    def _set_start_by(self, task: Task, now: datetime) -> None:
        at = now + self.world.lots_between(0, 90)
        self._write(replace(task, start_by=None if task.start_by else at), What.START_BY)

    def _delay_start(self, task: Task, now: datetime) -> None:
        at = now + self.world.lots_between(0, 20)
        self._write(replace(task, start_at=None if task.start_at else at), What.TIMING)

    def _choose_policy(self, task: Task, _: datetime) -> None:
        policy = self.world.lots.choice(list(RestartPolicy))
        self._write(replace(task, restart_policy=policy), What.TIMING)

    def _die(self, _: Task, __: datetime) -> None:
        """Let the vendor end one of this row's agents by itself."""
        self.vendor.pass_time(self.world.now)
        for instance in self.vendor.live:
            if instance.task_id == self.task_id:
                self.world.tell(f"{instance.handle} dies at the vendor")
                self.vendor.end(instance, "died")
                return
