"""`make uninstall` on a machine where the service runs. The machine is this test's own."""

from pathlib import Path

import pytest

from tests.service.machine import SERVICE, booted
from tests.service.serving import CONFIG, open_serving

pytestmark = pytest.mark.anyio

SCRIPT = Path(__file__).parents[2] / "systemd" / "uninstall"


@pytest.mark.usefixtures("bootable")
async def test_the_service_ends_and_its_state_stays(image: Path, tmp_path: Path) -> None:
    with booted(tmp_path, image) as machine:
        async with open_serving(machine) as serving:
            pid = await serving.start()
            # Below a temporary directory the clone would not be seen there.
            (machine.window / "uninstall").write_bytes(SCRIPT.read_bytes())
            said = await machine.run("sh", "/srv/window/uninstall")
            assert f"kept: {CONFIG}" in said
            assert not machine.path(f"/proc/{pid}").exists()
            assert await machine.show(SERVICE, "LoadState") == "not-found"
            assert machine.path(f"{CONFIG}/config.toml").exists()
            assert (machine.state / "orchestrator.db").exists()
            assert (await machine.attempt("which", "orchestrator")).returncode != 0
