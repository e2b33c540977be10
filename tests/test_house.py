"""Who may use what: the rules that need the code's structure and are no matter of layers.

The layers, and what the pure part may not import, are contracts in pyproject.toml.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = tuple(sorted((ROOT / "orchestrator").rglob("*.py")))
VENDORS = ("volcengine", "tencent", "zego")

PACKAGE_OWNERS = {
    "sqlalchemy": ("store/", "wake/"),
    "asyncpg": ("store/", "wake/"),
    "sqlite3": ("store/", "wake/"),
    "alembic": ("store/",),
    "aiohttp": (
        "daemon/transport",
        "daemon/bodies",
        "daemon/callbacks",
        "daemon/llm/",
        "daemon/monitoring/server",
        "simulator/",
    ),
    "prometheus_client": ("daemon/monitoring/",),
    "typer": ("cli.py", "commands/"),
    "rich": ("cli.py", "commands/"),
    "tomllib": ("config",),
}
"""Package: the only files that import it, as beginnings of their path under orchestrator/."""

CALL_OWNERS = {
    # The HTTP client: all that leaves us leaves through one file. The simulator posts callbacks.
    "aiohttp.ClientSession": ("daemon/transport", "daemon/llm/upstream", "simulator/"),
    "aiohttp.TCPConnector": ("daemon/transport", "daemon/llm/upstream", "simulator/"),
    # The environment.
    "os.environ": ("config",),
    "os.getenv": ("config",),
    # The time. `datetime.now` with a zone is still the machine's clock.
    "datetime.now": ("clock.py",),
    "datetime.utcnow": ("clock.py",),
    "datetime.today": ("clock.py",),
    "date.today": ("clock.py",),
    "time.time": ("clock.py",),
    "time.time_ns": ("clock.py",),
    "time.monotonic": ("clock.py",),
    "time.monotonic_ns": ("clock.py",),
    "time.clock_gettime": ("clock.py",),
    "time.clock_gettime_ns": ("clock.py",),
}
"""Attribute, as the source writes it or as it was imported: the only files that use it."""

PURE = {
    "core": ("orchestrator.core.",),
    "providers": (
        "orchestrator.providers.",
        "orchestrator.core.caps",
        "orchestrator.core.command",
        "orchestrator.core.fact",
        "orchestrator.core.model",
        "orchestrator.core.outcome",
        "pydantic",
    ),
}
"""What the pure part imports beside the standard library: nothing else, however harmless."""


def place(path: Path) -> str:
    """The path under orchestrator/, which is how the tables above name a file."""
    return path.relative_to(ROOT / "orchestrator").as_posix()


def imported_modules(path: Path) -> Iterator[str]:
    """Modules that a file imports; `from a import b` counts as `a.b`, since b may be a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


def used_attributes(path: Path) -> Iterator[str]:
    """`module.name` of what a file uses or imports, the module without what stands before it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name | ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else node.value.attr
            yield f"{owner}.{node.attr}"
    yield from (".".join(name.split(".")[-2:]) for name in imported_modules(path))


@pytest.mark.parametrize("package", PACKAGE_OWNERS)
def test_a_package_has_its_owners(package: str) -> None:
    intruders = {
        place(path)
        for path in OURS
        if package in {name.split(".")[0] for name in imported_modules(path)}
        and not place(path).startswith(PACKAGE_OWNERS[package])
    }
    assert intruders == set()


@pytest.mark.parametrize("call", CALL_OWNERS)
def test_a_call_has_its_owners(call: str) -> None:
    intruders = {
        place(path)
        for path in OURS
        if call in used_attributes(path) and not place(path).startswith(CALL_OWNERS[call])
    }
    assert intruders == set()


def test_the_clock_is_found_where_it_is() -> None:
    clock = set(used_attributes(ROOT / "orchestrator" / "clock.py"))
    assert clock >= {"datetime.now", "time.clock_gettime_ns"}


@pytest.mark.parametrize("part", PURE)
def test_the_pure_part_imports_the_standard_library_and_itself(part: str) -> None:
    strangers = {
        f"{place(path)}: {name}"
        for path in OURS
        if place(path).startswith(f"{part}/")
        for name in imported_modules(path)
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith(PURE[part])
    }
    assert strangers == set()


def vendor_of(module: str) -> str | None:
    """The vendor that a module of providers belongs to: `tencent_spec` is tencent's."""
    return next((vendor for vendor in VENDORS if module.startswith(vendor)), None)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_is_known_to_its_own_files_and_to_the_composition_root(vendor: str) -> None:
    """What differs between vendors reaches everybody else as values."""
    intruders = {
        f"{place(path)}: {name}"
        for path in OURS
        if place(path) != "app.py" and not place(path).startswith(f"providers/{vendor}")
        for name in imported_modules(path)
        if name.startswith("orchestrator.providers.") and vendor_of(name.split(".")[2]) == vendor
    }
    assert intruders == set()


def test_migrations_import_nothing_of_ours() -> None:
    """What a migration did must not change when the code does."""
    borrowed = {
        f"{path.name}: {name}"
        for path in sorted((ROOT / "migrations").rglob("*.py"))
        for name in imported_modules(path)
        if name.split(".")[0] == "orchestrator"
    }
    assert borrowed == set()
