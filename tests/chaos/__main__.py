"""Everything goes wrong at once: `python -m tests.chaos [--seed N] [--minutes M] …`.

Real daemons before simulated vendors, with faults, random users, kills, freezes and databases that
go away; then calm, and a verdict. Ends with 1 if a promise was broken.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final, get_args

import anyio

from orchestrator.clock import utc_now
from tests.chaos.databases import Kind
from tests.chaos.report import as_json, as_text
from tests.chaos.run import Plan, Verdict, run_chaos
from tests.chaos.times import SHORT, USUAL
from tests.chaos.troubles import BRIEF, LONG

LONG_MINUTES: Final = 3
"""A run shorter than this has shorter troubles, so that it meets each kind."""
TIMES: Final = {"short": SHORT, "usual": USUAL}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="default: drawn, and printed")
    parser.add_argument("--minutes", type=float, default=10, help="of trouble (10)")
    parser.add_argument("--database", choices=get_args(Kind), help="default: one after the other")
    parser.add_argument("--times", choices=[*TIMES], default="short", help="of the configuration")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    wanted = parser.parse_args()
    seed = int(utc_now().timestamp()) if wanted.seed is None else wanted.seed
    kinds: tuple[Kind, ...] = (wanted.database,) if wanted.database else get_args(Kind)
    verdicts = []
    for kind in kinds:
        plan = Plan(
            kind=kind,
            seed=seed,
            seconds=wanted.minutes * 60,
            times=TIMES[wanted.times],
            lengths=LONG if wanted.minutes >= LONG_MINUTES else BRIEF,
        )
        verdicts.append(_run(plan, is_quiet=wanted.json))
    if wanted.json:
        sys.stdout.write(f"{as_json(verdicts)}\n")
    return 1 if any(verdict.findings for verdict in verdicts) else 0


def _run(plan: Plan, *, is_quiet: bool) -> Verdict:
    """Run a plan; what broke a promise leaves its files."""
    folder = Path(tempfile.mkdtemp(prefix=f"chaos-{plan.kind}-{plan.seed}-"))
    out = sys.stderr if is_quiet else sys.stdout
    out.write(f"chaos on {plan.kind}, seed {plan.seed}, files in {folder}\n")
    out.flush()
    verdict = anyio.run(run_chaos, plan, folder)
    out.write(f"{as_text(verdict)}\n")
    out.flush()
    return verdict


if __name__ == "__main__":
    sys.exit(main())
