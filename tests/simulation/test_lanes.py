"""Seeds of lanes on every run, every wrong core caught, and no lane that waits for another."""

from datetime import timedelta

import pytest

from orchestrator.core.command import Command, CommandState, Kind
from tests.simulation.checkers import Broken
from tests.simulation.lanes import LaneWorld, build
from tests.simulation.lanes_mutants import LANE_MUTANTS, catch_lane
from tests.simulation.mutation import Mutant
from tests.simulation.world import BEGIN

SEEDS = 120


def test_every_promise_holds_in_every_lane() -> None:
    for seed in range(SEEDS):
        world = build(seed, records=True)
        try:
            world.run()
        except Broken as broken:
            pytest.fail("\n".join([*(world.history or ()), f"seed {seed}: {broken}"]))


def test_a_seed_is_one_history() -> None:
    first, second = build(7, records=True), build(7, records=True)
    first.run()
    second.run()
    assert first.history
    assert first.history == second.history


def test_the_histories_meet_every_end_a_command_can_have() -> None:
    met: set[tuple[CommandState, str | None]] = set()
    for seed in range(25):
        world = build(seed)
        world.run()
        met |= {(command.state, command.reason) for command in world.store.commands.values()}
    assert {state for state, _ in met} >= set(CommandState) - {
        CommandState.QUEUED,
        CommandState.SENDING,
    }
    assert {reason for _, reason in met if reason and reason.isalpha()} >= {
        "AgentEnded", "Cancelled", "Expired", "InvalidPayload", "InvalidSequence",
        "MixedSequence", "OutcomeUnknown", "StaleSequence", "Superseded", "TaskEnded",
    }  # fmt: skip


def test_a_lane_whose_calls_are_all_lost_delays_no_other() -> None:
    for seed in range(10):
        world = build(seed, trouble=0.0, lost_users=frozenset({"u3"}))
        world.run()
        sent = of_user(world, "u4")
        assert len(sent) > 2
        free_at = BEGIN
        for command in sent:
            assert command.sent_at is not None
            assert command.done_at is not None
            began = max(at for at in world.began if at <= command.sent_at)
            waited = command.sent_at - max(command.created_at, began, free_at)
            assert waited < timedelta(milliseconds=20)
            free_at = command.done_at


def of_user(world: LaneWorld, user_id: str) -> list[Command]:
    """A user's presses in the order in which they were sent."""
    mine = [c for c in world.store.commands.values() if c.user_id == user_id]
    return sorted((c for c in mine if c.sent_at is not None), key=lambda c: c.sent_at or BEGIN)


def test_without_faults_a_tidy_user_is_heard_press_by_press() -> None:
    for seed in range(10):
        world = build(seed, trouble=0.0)
        world.run()
        for incarnation in range(1, len(world.began) + 1):
            kinds = [
                effect.command.kind
                for effect in world.vendor.effects
                if effect.command.user_id == "u4" and effect.incarnation == incarnation
            ]
            assert set(kinds[::2]) <= {Kind.START_LISTENING}
            assert set(kinds[1::2]) <= {Kind.STOP_LISTENING}


@pytest.mark.parametrize("mutant", LANE_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_wrong_core_of_lanes_is_caught(mutant: Mutant) -> None:
    assert catch_lane(mutant) is not None
