"""`orchestrator run`: the daemon, from its configuration to its end."""

from collections.abc import Sequence
from pathlib import Path

import anyio

from orchestrator import log
from orchestrator.app import App, build
from orchestrator.config import open_config


def run(option: Path | None, abandon: Sequence[str]) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    Raises:
        ConfigError: the configuration is wrong.
        OrchestratorError: what `supervise.run` raises.
    """
    config = open_config(option)
    log.configure(config.log, log.Redactor(config.secret_values))
    say = log.logger(__name__)
    for warning in config.warnings:
        say.warning("configuration", message=warning)
    try:
        anyio.run(_serve, build(config, abandon))
    except KeyboardInterrupt:
        say.info("interrupted")


async def _serve(app: App) -> None:
    from orchestrator.daemon import supervise  # noqa: PLC0415 - a wrong file is told of at once

    try:
        await supervise.run(app)
    finally:
        with anyio.CancelScope(shield=True):
            await app.database.close()
