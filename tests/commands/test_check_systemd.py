"""What `check` says of the service, from what `systemctl show` prints."""

import pytest

from orchestrator.commands.checks.systemd import judge_unit, judge_units, parse

PLAIN = """\
Id=orchestrator.service
LoadState=loaded
ActiveState={active}
UnitFileState={file}
NeedDaemonReload={reload}
"""
INSTANCE = PLAIN.replace("Id=orchestrator.service", "Id=orchestrator@two.service")
NONE = PLAIN.replace("LoadState=loaded", "LoadState=not-found")


def shown(text: str, active: str = "active", file: str = "enabled", reload: str = "no") -> str:
    return text.format(active=active, file=file, reload=reload)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (shown(PLAIN), [("well", "orchestrator.service is active, and started at boot")]),
        (
            shown(PLAIN, "activating"),
            [("well", "orchestrator.service is activating, and started at boot")],
        ),
        (shown(PLAIN, "failed"), [("trouble", "orchestrator.service has failed")]),
        (
            shown(PLAIN, "failed", "disabled"),
            [("trouble", "orchestrator.service has failed")],
        ),
        (shown(PLAIN, "inactive"), [("warning", "orchestrator.service does not run")]),
        (
            shown(PLAIN, "active", "disabled"),
            [("warning", "orchestrator.service is active, and not started at boot")],
        ),
        (
            shown(PLAIN, "inactive", "disabled"),
            [("warning", "orchestrator.service is inactive, and not started at boot")],
        ),
        (
            shown(PLAIN, reload="yes"),
            [
                ("warning", "orchestrator.service has changed on disk"),
                ("well", "orchestrator.service is active, and started at boot"),
            ],
        ),
        (
            shown(PLAIN, "inactive", "disabled") + "\n" + shown(INSTANCE),
            [("well", "orchestrator@two.service is active, and started at boot")],
        ),
        (
            shown(PLAIN) + "\n" + shown(INSTANCE, "failed"),
            [
                ("well", "orchestrator.service is active, and started at boot"),
                ("trouble", "orchestrator@two.service has failed"),
            ],
        ),
        (shown(NONE, "inactive"), []),
    ],
)
def test_what_is_said_of_a_unit(text: str, said: list[tuple[str, str]]) -> None:
    found = list(judge_units(parse(text)))
    assert [(one.verdict, one.what.removeprefix("service: ")) for one in found] == said
    assert all(bool(one.advice) is (one.verdict != "well") for one in found)


@pytest.mark.anyio
async def test_a_machine_without_systemd_is_no_trouble() -> None:
    found = await judge_unit()
    assert found
    assert all(one.what.startswith("service: ") for one in found)
