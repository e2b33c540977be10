"""Which phase may follow which, as a table. `docs/state-machine.md` is drawn from it.

The phases are derived (`arrange.phase_of`); this table is what the derivation must never leave,
and the invariants and the simulation hold it to that.
"""

from orchestrator.core.model import Phase

_P = Phase

TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    _P.PENDING: frozenset({_P.STARTING, _P.RUNNING, _P.STOPPING, _P.STOPPED, _P.FAILED}),
    _P.STARTING: frozenset(
        {_P.PENDING, _P.RUNNING, _P.STOPPING, _P.QUARANTINED, _P.STOPPED, _P.FAILED}
    ),
    _P.RUNNING: frozenset({_P.STARTING, _P.STOPPING, _P.PENDING, _P.STOPPED}),
    _P.STOPPING: frozenset(
        {_P.PENDING, _P.STARTING, _P.RUNNING, _P.QUARANTINED, _P.STOPPED, _P.FAILED}
    ),
    _P.QUARANTINED: frozenset({_P.PENDING, _P.STARTING, _P.STOPPING, _P.STOPPED, _P.FAILED}),
    _P.STOPPED: frozenset({_P.PENDING, _P.STARTING, _P.STOPPING, _P.FAILED}),
    _P.FAILED: frozenset({_P.PENDING, _P.STARTING, _P.STOPPING, _P.STOPPED}),
}
"""A restart goes back to `pending`. It may end before anybody saw it, so `stopped` and `failed`
follow one another. From where nothing runs to `running` or `stopping`, and back to `running`: a
handle turned up late, and what it stands for is asked about before anything else.
"""


def is_allowed(before: Phase, after: Phase) -> bool:
    """Return whether a row may show `after` when it was last seen showing `before`."""
    return after is before or after in TRANSITIONS[before]


def to_mermaid() -> str:
    """Return the table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.PENDING}"]
    for before, afters in TRANSITIONS.items():
        lines += [f"    {before} --> {after}" for after in sorted(afters)]
    lines += [f"    {Phase.STOPPED} --> [*]"]
    return "\n".join(lines)
