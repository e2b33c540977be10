"""`orchestrator run`: the daemon, from its configuration to its end."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import anyio

from orchestrator import log
from orchestrator.app import build
from orchestrator.config import find_service_manager, open_config
from orchestrator.daemon import supervise
from orchestrator.daemon.sd_notify import Notifier
from orchestrator.daemon.setup import Setup


def run(option: Path | None, abandon: Sequence[str]) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: the configuration is wrong.
        OrchestratorError: what `supervise.run` raises.
    """
    config = open_config(option)
    redactor = log.Redactor(config.secret_values)
    log.configure(config.log, redactor)
    say = log.logger(__name__)
    for warning in config.warnings:
        say.warning("configuration", message=warning)
    manager = find_service_manager()
    notifier = Notifier(manager.socket, manager.watchdog_s)
    try:
        anyio.run(_serve, replace(build(config, redactor, abandon), notifier=notifier))
    except KeyboardInterrupt:
        say.info("interrupted")


async def _serve(setup: Setup) -> None:
    try:
        await supervise.run(setup)
    finally:
        with anyio.CancelScope(shield=True):
            await setup.database.close()
