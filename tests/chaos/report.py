"""The figures of a run, for people and as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tests.chaos.checkers import ours
from tests.chaos.run import Verdict

Figures = dict[str, Any]


def figures(verdict: Verdict) -> Figures:
    """Return what was counted, by the names under which it is printed."""
    plan, diary = verdict.plan, verdict.diary
    spells = diary.count_spells()
    promises = Counter(finding.promise for finding in verdict.findings)
    starts = ours(verdict.picture.agents, diary)
    wanted = [leak for leak in verdict.leaks if not leak.is_zombie]
    zombies = [leak for leak in verdict.leaks if leak.is_zombie]
    return {
        "database": plan.kind,
        "seed": plan.seed,
        "seconds of trouble": plan.seconds,
        "edits": diary.edits,
        "presses and releases": diary.presses,
        **{f"trouble: {kind}": count for kind, count in sorted(spells.items())},
        "vendor faults met": sum(call.fault is not None for call in verdict.calls),
        "agents ended by the vendor": len(diary.ended),
        "callbacks heard": verdict.picture.callbacks,
        "calls": len(verdict.calls),
        "agents started": len(starts),
        "double agents": promises["P1"],
        "agents left at the end": verdict.left,
        "foreign agents stopped": promises["P7"],
        "order violations": promises["P5"],
        "limiter overshoot": promises["P6"],
        "limiter windows not judged": verdict.unjudged,
        "machine stood still, s": round(sum(stall.seconds for stall in diary.stalls), 1),
        "broken otherwise": promises["P3"] + promises["P8"],
        "leaked s, p50/p99/max": _spread([leak.seconds for leak in wanted], len(starts)),
        "while somebody could work": _spread([leak.owed_s for leak in wanted], len(starts)),
        "bound of that": plan.times.leak_s,
        "zombies": len(zombies),
        "zombies leaked s, p50/p99/max": _spread([leak.seconds for leak in zombies]),
        "zombies, while somebody could": _spread([leak.owed_s for leak in zombies]),
        "bound of that, of zombies": plan.times.zombie_leak_s,
        "agreed after s": round(verdict.calm_s, 1),
        "agreed after s, bound": plan.times.calm_s,
    }


def as_text(verdict: Verdict) -> str:
    """Return a table, what was broken, and what happened to the rows concerned."""
    lines = [f"  {name:<32} {_said(value)}" for name, value in figures(verdict).items()]
    lines += [f"BROKEN {finding.promise}: {finding.sentence}" for finding in verdict.findings]
    lines += [f"history of {task_id}\n{told}" for task_id, told in verdict.histories.items()]
    return "\n".join(lines)


def as_json(verdicts: Sequence[Verdict]) -> str:
    """Return the figures and findings of all runs."""
    told = [
        {**figures(verdict), "findings": [asdict(finding) for finding in verdict.findings]}
        for verdict in verdicts
    ]
    return json.dumps(told, indent=2)


def _spread(leaked: Sequence[float], agents: int = 0) -> tuple[float, float, float]:
    """Return the middle, the hundredth and the worst of all agents; most of them leak nothing."""
    seconds = sorted([*leaked, *[0.0] * (agents - len(leaked))])
    if not seconds:
        return 0.0, 0.0, 0.0
    last = len(seconds) - 1
    middle, hundredth, worst = (seconds[at] for at in (last // 2, last * 99 // 100, last))
    return round(middle, 2), round(hundredth, 2), round(worst, 2)


def _said(value: object) -> str:
    match value:
        case tuple():
            return " / ".join(map(str, value))
        case float():
            return f"{value:g}"
        case _:
            return str(value)
