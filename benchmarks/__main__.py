"""`python -m benchmarks [NAME …]`: measure and print; without names everything."""

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, get_args

import anyio

from benchmarks import crash, lanes, lifecycles, llm, rest, resting, wakeup
from benchmarks.databases import Kind
from benchmarks.figures import Figure
from benchmarks.setting import Setting, open_setting
from orchestrator import log
from orchestrator.settings import Log

Measure = Callable[[Setting, Kind], Awaitable[list[Figure]]]

MEASURES: Final[Mapping[str, Measure]] = {
    "lifecycles": partial(lifecycles.measure, scale=lifecycles.Scale()),
    "wakeup": partial(wakeup.measure, scale=wakeup.Scale()),
    "lanes": partial(lanes.measure, scale=lanes.Scale()),
    "llm": partial(llm.measure, scale=llm.Scale()),
    "resting": partial(resting.measure, scale=resting.Scale()),
    "rest": partial(rest.measure, scale=rest.Scale()),
    "crash": partial(crash.measure, scale=crash.Scale()),
}
"""In the order in which they are run."""


def main() -> None:
    """Measure what was asked for, on the databases that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*MEASURES, []], metavar="NAME")
    parser.add_argument("--database", choices=get_args(Kind), action="append", dest="kinds")
    wanted = parser.parse_args()
    # Some measurements run parts of the daemon in this process, and a line for each call is work.
    log.configure(Log(level="error"), log.Redactor(), sys.stderr)
    anyio.run(_measure, wanted.names or list(MEASURES), wanted.kinds or get_args(Kind))


async def _measure(names: Sequence[str], kinds: Sequence[Kind]) -> None:
    async with open_setting() as setting:
        for name in names:
            for kind in kinds:
                print(f"\n{name} on {kind}", flush=True)
                for figure in await MEASURES[name](setting, kind):
                    print(f"  {figure.what:<44} {figure.said}", flush=True)


if __name__ == "__main__":
    main()
