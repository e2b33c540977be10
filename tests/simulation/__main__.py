"""The simulation as a command: `python -m tests.simulation --seeds 200 | --seed 42 | --mutants`."""

import argparse
import sys
import time
from random import Random

from orchestrator.core.model import Recovery
from tests.simulation.checkers import Broken
from tests.simulation.mutants import MUTANTS, catch
from tests.simulation.world import World, build

ROWS = 3


def say(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def world_of(seed: int, *, records: bool = False) -> World:
    """The world of a seed: three rows, each at a vendor that the seed chooses."""
    kinds = tuple(Random(seed).choice(list(Recovery)) for _ in range(ROWS))
    return build(seed, kinds, records=records)


def run_seeds(first: int, seeds: int) -> list[str]:
    """Run many seeds; return a line for each that broke a promise."""
    failures, steps, began = [], 0, time.perf_counter()
    for seed in range(first, first + seeds):
        world = world_of(seed)
        try:
            world.run()
        except Broken as broken:
            failures.append(f"seed {seed}: {broken}")
        steps += world.steps
    took = time.perf_counter() - began
    say(f"{seeds} seeds, {steps} steps, {steps / took:.0f} steps/s, {len(failures)} failed")
    return failures


def show_seed(seed: int) -> list[str]:
    """Print the whole history of a seed; return what it broke."""
    world = world_of(seed, records=True)
    try:
        world.run()
    except Broken as broken:
        return [str(broken)]
    finally:
        say(*world.history or ())
    return []


def run_mutants() -> list[str]:
    """Run every wrong core until a checker catches it; return those that none has caught."""
    escaped = []
    for mutant in MUTANTS:
        caught = catch(mutant)
        say(f"{mutant.name:45} {caught or 'ESCAPED'}")
        if caught is None:
            escaped.append(f"{mutant.name} escaped")
    return escaped


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--seeds", type=int, metavar="N", help="run N seeds")
    group.add_argument("--mutants", action="store_true", help="run the wrong cores")
    group.add_argument("--seed", type=int, metavar="N", help="run one seed and print its history")
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds")
    args = parser.parse_args()
    if args.mutants:
        failures = run_mutants()
    elif args.seeds is not None:
        failures = run_seeds(args.first, args.seeds)
    else:
        failures = show_seed(args.seed)
    say(*failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
