"""The simulation as a command: `python -m tests.simulation --seeds 200 | --seed 42 | --mutants`."""

import argparse
import sys
import time
from random import Random

from orchestrator.core.model import Recovery
from tests.simulation.checkers import Broken
from tests.simulation.world import World, build

ROWS = 3


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
    print(f"{seeds} seeds, {steps} steps, {steps / took:.0f} steps/s, {len(failures)} failed")
    return failures


def show_seed(seed: int) -> list[str]:
    """Print the whole history of a seed; return what it broke."""
    world = world_of(seed, records=True)
    try:
        world.run()
    except Broken as broken:
        return [str(broken)]
    finally:
        print(*world.history or (), sep="\n")
    return []


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--seeds", type=int, metavar="N", help="run N seeds")
    group.add_argument("--seed", type=int, metavar="N", help="run one seed and print its history")
    parser.add_argument("--first", type=int, default=0, help="the first of the seeds")
    args = parser.parse_args()
    failures = run_seeds(args.first, args.seeds) if args.seeds else show_seed(args.seed)
    print(*failures, sep="\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
