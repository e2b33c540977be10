"""The three vendors, simulated: for our tests, for `orchestrator dev`, and for anybody's own tests.

simulator = Simulator(keys.DEMO)
async with serve(simulator, "127.0.0.1", 0) as base_url:
    ...
"""

from orchestrator.simulator.server import make_app, serve
from orchestrator.simulator.simulation import Simulator
from orchestrator.simulator.switches import Switches

__all__ = ["Simulator", "Switches", "make_app", "serve"]
