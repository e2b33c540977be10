"""The simulation as a command: `python -m tests.simulation --seeds 200 | --seed 42 | --mutants`.

Rows and lanes are two worlds. Many seeds and the mutants run in both; `--lanes` chooses for one.
"""

import argparse
import sys
import time
from collections.abc import Callable
from random import Random

from orchestrator.core.caps import Recovery
from tests.simulation.checkers import Broken
from tests.simulation.lanes import LaneWorld
from tests.simulation.lanes import build as build_lanes
from tests.simulation.lanes_mutants import LANE_MUTANTS, catch_lane
from tests.simulation.mutants import MUTANTS
from tests.simulation.mutation import Mutant, catch
from tests.simulation.world import World, build

ROWS = 3


def say(*lines: str) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)


def world_of(seed: int, *, records: bool = False) -> World:
    """The world of a seed: three rows, each at a vendor that the seed chooses."""
    kinds = tuple(Random(seed).choice(list(Recovery)) for _ in range(ROWS))
    return build(seed, kinds, records=records)


def lanes_of(seed: int, *, records: bool = False) -> LaneWorld:
    """The world of lanes of a seed."""
    return build_lanes(seed, records=records)


def run_seeds(name: str, make: Callable[[int], World | LaneWorld], seeds: range) -> list[str]:
    """Run many seeds; return a line for each that broke a promise."""
    failures, steps, began = [], 0, time.perf_counter()
    for seed in seeds:
        world = make(seed)
        try:
            world.run()
        except Broken as broken:
            failures.append(f"{name}, seed {seed}: {broken}")
        steps += world.steps
    pace = steps / (time.perf_counter() - began)
    counts = f"{len(seeds)} seeds, {steps} steps, {pace:.0f} steps/s, {len(failures)} failed"
    say(f"{name}: {counts}")
    return failures


def show_seed(world: World | LaneWorld) -> list[str]:
    """Print the whole history of a seed; return what it broke."""
    try:
        world.run()
    except Broken as broken:
        return [str(broken)]
    finally:
        say(*world.history or ())
    return []


def run_mutants(mutants: tuple[Mutant, ...], catches: Callable[[Mutant], str | None]) -> list[str]:
    """Run wrong cores until a checker catches each; return those that none has caught."""
    escaped = []
    for mutant in mutants:
        caught = catches(mutant)
        say(f"{mutant.name:50} {caught or 'ESCAPED'}")
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
    parser.add_argument("--lanes", action="store_true", help="the seed is one of lanes")
    args = parser.parse_args()
    if args.mutants:
        failures = run_mutants(MUTANTS, catch) + run_mutants(LANE_MUTANTS, catch_lane)
    elif args.seeds is not None:
        seeds = range(args.first, args.first + args.seeds)
        failures = run_seeds("rows", world_of, seeds) + run_seeds("lanes", lanes_of, seeds)
    else:
        make = lanes_of if args.lanes else world_of
        failures = show_seed(make(args.seed, records=True))
    say(*failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
