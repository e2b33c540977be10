"""What must not be found where a daemon keeps or tells things: keys, tokens, spoken words."""

from collections.abc import Collection
from pathlib import Path

from tests.daemon.application import SQLITE
from tests.daemon.running import Scene
from tests.daemon.test_secrets_stay_out import dump


async def places(scene: Scene) -> dict[str, bytes]:
    """Return all that the database and the daemons' logs hold, by where it is.

    Of SQLite also the files, in which a deleted row may still be read.
    """
    found = {daemon.log_path.name: daemon.log_path.read_bytes() for daemon in scene.daemons}
    found["the database"] = (await dump(scene)).encode()
    if scene.on_sqlite:
        path = Path(scene.database_url.removeprefix(SQLITE))
        found |= {file.name: file.read_bytes() for file in path.parent.glob(f"{path.name}*")}
    return found


async def assert_quiet(scene: Scene, forbidden: Collection[str]) -> None:
    """None of these words is in the database or in a log."""
    found = await places(scene)
    assert b"running" in found["the database"]  # it is a dump of what there is
    for place, held in found.items():
        for word in forbidden:
            assert word.encode() not in held, f"{place} holds {word}"
