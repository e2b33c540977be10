"""Whether systemd knows the service, starts it at boot, and runs it.

Rule 1: a machine without systemd is no trouble: a container, or a person who tries it out.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import anyio

from orchestrator.commands.checks.finding import Finding

UNIT: Final = "orchestrator.service"
INSTANCES: Final = "orchestrator@*.service"
FOLDERS: Final = (
    Path("/etc/systemd/system"),
    Path("/usr/local/lib/systemd/system"),
    Path("/usr/lib/systemd/system"),
    Path("/lib/systemd/system"),
)
BOOTED: Final = Path("/run/systemd/system")
"""Is there where systemd is the init, as sd_booted(3) says."""
PATIENCE_S: Final = 5

_PROPERTIES: Final = "Id,LoadState,UnitFileState,ActiveState,NeedDaemonReload"


async def judge_unit() -> Sequence[Finding]:
    """Return what is to be said about the service of this machine."""
    if not BOOTED.is_dir():
        return [Finding("well", "service: systemd does not run here, nothing to look at")]
    if not any((folder / UNIT).is_file() for folder in FOLDERS):
        told = f"service: {UNIT} is not installed"
        return [Finding("warning", told, "make install, unless something else starts the daemon")]
    shown = await _show()
    if shown is None:
        told = f"service: {UNIT} is installed; systemctl does not answer"
        return [Finding("warning", told, "systemctl status orchestrator")]
    return list(judge_units(parse(shown)))


async def _show() -> str | None:
    """Return what systemctl says of the unit and of its instances; null if it says nothing."""
    systemctl = shutil.which("systemctl")
    if systemctl is None:
        return None
    command = [systemctl, "show", f"--property={_PROPERTIES}", UNIT, INSTANCES]
    try:
        with anyio.fail_after(PATIENCE_S):
            done = await anyio.run_process(command, check=False)
    except (OSError, TimeoutError):
        return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None


def parse(shown: str) -> Sequence[Mapping[str, str]]:
    """Return the properties of each unit, of which `systemctl show` makes a paragraph each."""
    paragraphs = (paragraph.splitlines() for paragraph in shown.split("\n\n"))
    units = [dict(line.split("=", 1) for line in lines if "=" in line) for lines in paragraphs]
    return [unit for unit in units if unit.get("LoadState") == "loaded"]


def judge_units(units: Sequence[Mapping[str, str]]) -> Iterator[Finding]:
    """Yield what is to be said about units that are loaded: the one, and its instances."""
    runs = any(unit["ActiveState"] in {"active", "activating", "reloading"} for unit in units)
    for unit in units:
        name, state = unit["Id"], unit["ActiveState"]
        if unit.get("NeedDaemonReload") == "yes":
            told = f"service: {name} has changed on disk"
            yield Finding("warning", told, "systemctl daemon-reload")
        if state == "failed":
            advice = f"journalctl -u {name}, then systemctl start {name}"
            yield Finding("trouble", f"service: {name} has failed", advice)
        elif state == "inactive" and runs:
            # On a machine with instances the plain unit is not meant to run, and the reverse.
            continue
        elif unit.get("UnitFileState") not in {"enabled", "enabled-runtime", "linked", "alias"}:
            told = f"service: {name} is {state}, and not started at boot"
            yield Finding("warning", told, f"systemctl enable --now {name}")
        elif state == "inactive":
            yield Finding("warning", f"service: {name} does not run", f"systemctl start {name}")
        else:
            yield Finding("well", f"service: {name} is {state}, and started at boot")
