"""Seeds that once failed, with their stories: the core as it was still fails them, and only it.

The world may change, and then a seed tells another history. So each is run with the rule as it was,
too: where that passes, look for another seed (`catch`) that tells the story.
"""

from pathlib import Path

import pytest

from orchestrator.core.caps import Recovery
from tests.simulation.checkers import Broken
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import applied
from tests.simulation.world import build

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}

HISTORIES = [
    pytest.param(
        "a settle overwrites a handle",
        0,
        Recovery.EVICT,
        id="a look finds nothing while the create's late reply writes its handle",
    ),
    pytest.param(
        "an unread stop by room and user has no horizon",
        55,
        Recovery.STOP_FIRST,
        id="a stop that nobody answered arrives when the next agent runs",
    ),
    pytest.param(
        "a hint of a former life holds a stop back",
        27,
        Recovery.EVICT,
        id="what was answered to another need holds a stop back to the horizon",
    ),
    pytest.param(
        "a failed re-send erases the first send",
        0,
        Recovery.SAME_NAME,
        id="the first send takes effect after the second was refused",
    ),
    pytest.param(
        "the handle of one that ended goes to another of its name",
        211,
        Recovery.EVICT,
        id="a word about the second try comes late, and only the first is left to hear it",
    ),
    pytest.param(
        "a handle that anybody may have made up stands for its name",
        36,
        Recovery.EVICT,
        id="somebody makes up a handle for a start whose answer was lost",
    ),
    pytest.param(
        "a clock that is set ahead puts nothing off",
        103,
        Recovery.FIND,
        id="a clock is set ahead while a start is on its way, and its horizon comes too soon",
    ),
]


@pytest.mark.parametrize(("rule", "seed", "kind"), HISTORIES)
def test_a_history_is_survived_and_was_not(rule: str, seed: int, kind: Recovery) -> None:
    build(seed, (kind,) * 3).run()
    with applied(BY_NAME[rule]), pytest.raises(Broken):
        build(seed, (kind,) * 3).run()


def test_every_wrong_core_is_in_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text(encoding="utf-8")
    assert [name for name in BY_NAME if f"| {name} |" not in text] == []
