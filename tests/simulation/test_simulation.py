"""200 seeds on every run, a quarter for each kind of vendor, and every wrong core caught."""

import pytest

from orchestrator.core.caps import Recovery
from orchestrator.core.model import Evidence
from tests.simulation.__main__ import world_of
from tests.simulation.checkers import Broken
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import Mutant, catch
from tests.simulation.world import build

SEEDS = 50


@pytest.mark.parametrize("kind", Recovery)
def test_every_promise_holds_at_a_vendor(kind: Recovery) -> None:
    for seed in range(SEEDS):
        world = build(seed, (kind,) * 3, records=True)
        try:
            world.run()
        except Broken as broken:
            pytest.fail("\n".join([*(world.history or ()), f"seed {seed}: {broken}"]))


def test_every_promise_holds_where_vendors_are_mixed() -> None:
    for seed in range(SEEDS):
        world_of(seed).run()


def test_a_seed_is_one_history() -> None:
    first, second = world_of(7, records=True), world_of(7, records=True)
    first.run()
    second.run()
    assert first.history
    assert first.history == second.history


def test_the_histories_meet_every_kind_of_evidence_and_of_orphan() -> None:
    """What never happens proves nothing."""
    evidence: set[Evidence | None] = set()
    orphans: set[tuple[str, bool, str]] = set()
    for kind in (Recovery.EVICT, Recovery.FIND):
        for seed in range(40):
            world = build(seed, (kind,) * 3)
            world.run()
            evidence |= {agent.evidence for agent in world.store.ledger.values()}
            found = world.store.orphans.values()
            orphans |= {(kind.value, one.stop, one.phase) for one in found}
    assert evidence >= set(Evidence) - {Evidence.ASSUMED}
    ends = {(True, "stopped"), (True, "ignored"), (False, "seen"), (False, "stopped")}
    assert orphans >= {(kind, *end) for kind in ("evict", "find") for end in ends}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_wrong_core_is_caught(mutant: Mutant) -> None:
    assert catch(mutant) is not None
