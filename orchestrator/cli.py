"""The command line: what can be asked for, and what an error looks like to the one who asked.

Rule 1: this file parses and explains; each command's work is in `commands`, imported only when it
is asked for, so that `--help` and `run` start at once.
Rule 2: an `OrchestratorError` is one clear line on standard error and its own exit code (1 trouble,
2 usage, configuration or schema). A traceback is for `--debug`, $ORCHESTRATOR_DEBUG, and bugs.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import __version__
from orchestrator.errors import OrchestratorError, UsageError

if TYPE_CHECKING:
    from orchestrator.settings import Address

app = typer.Typer(
    name="orchestrator",
    help="Keeps the lifecycle of cloud voice agents: rows in, agents at three vendors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@dataclass(slots=True)
class _Asked:
    """What was asked for before the command's name."""

    debug: bool = False


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="Default: $ORCHESTRATOR_CONFIG, then /etc/orchestrator/config.toml.",
    ),
]


def main() -> None:
    """Run the command that the process was started with, and exit."""
    asked = _Asked()
    try:
        app(obj=asked)
    except BaseException as error:
        trouble = _find_trouble(error)
        if trouble is None or asked.debug or _wants_debug():
            raise
        sys.stderr.write(f"orchestrator: {trouble}\n")
        raise SystemExit(trouble.exit_code) from None


def _find_trouble(error: BaseException) -> OrchestratorError | None:
    """Return what to tell, if `error` is, or task groups have wrapped, nothing but our own."""
    match error:
        case OrchestratorError():
            return error
        case BaseExceptionGroup(exceptions=inner):
            found = [_find_trouble(each) for each in inner]
            return None if None in found else found[0]
        case _:
            return None


def _wants_debug() -> bool:
    from orchestrator.config import wants_debug  # noqa: PLC0415 - see rule 1

    return wants_debug()


def _print_version(asked: bool) -> None:  # noqa: FBT001 - the callback's signature is typer's
    if asked:
        typer.echo(f"orchestrator {__version__}")
        raise typer.Exit


@app.callback()
def _before(
    context: typer.Context,
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[  # noqa: ARG001 - its callback has done it
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    context.obj.debug = debug


@app.command()
def run(
    config: ConfigOption = None,
    abandon: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ACCOUNT",
            help="Start although this account has agents and is not in the file any more: "
            "nobody will stop them. May be given more than once.",
        ),
    ] = None,
) -> None:
    """Run the daemon until SIGTERM."""
    from orchestrator.commands import run as command  # noqa: PLC0415 - see rule 1

    command.run(config, tuple(abandon or ()))


@app.command()
def migrate(
    config: ConfigOption = None,
    *,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements, run none.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Try until the database can be reached (the service's).")
    ] = False,
) -> None:
    """Bring the database's schema to this version."""
    from orchestrator.commands import migrate as command  # noqa: PLC0415 - see rule 1

    if sql and wait:
        raise UsageError("--sql asks no database, so there is nothing to wait for: choose one")
    if sql:
        command.show(config)
    elif wait:
        command.run_when_reachable(config)
    else:
        command.run(config)


@app.command()
def dev(
    database: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Default: an SQLite file under var/."),
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Of the simulated vendors. Default: 127.0.0.1:8790."
        ),
    ] = None,
    *,
    examples: Annotated[
        bool, typer.Option("--examples/--no-examples", help="Insert three example tasks.")
    ] = True,
) -> None:
    """Run everything in one process: database, simulated vendors, daemon, three example tasks."""
    address = None if listen is None else _address(listen)
    from orchestrator.commands import dev as command  # noqa: PLC0415 - see rule 1

    command.run(command.Wanted(database=database, listen=address, examples=examples))


@app.command()
def simulate(
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Port 0: any.")],
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            metavar="FILE",
            help="Accept the keys of its accounts. Default: demo keys, which are printed.",
        ),
    ] = None,
    speed: Annotated[float, typer.Option(min=0.001, help="Seconds of theirs in one.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the faults' lots.")] = 0,
) -> None:
    """Run the simulated vendors alone, for an application's own tests."""
    address = _address(listen)
    from orchestrator.commands import simulate as command  # noqa: PLC0415 - see rule 1

    command.run(command.Wanted(listen=address, config=config, speed=speed, seed=seed))


@app.command()
def check(config: ConfigOption = None) -> None:
    """Check configuration, database and vendors, and say what to do about what is wrong."""
    from orchestrator.commands import check as command  # noqa: PLC0415 - see rule 1

    raise typer.Exit(command.run(config))


@app.command()
def status(
    config: ConfigOption = None,
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Show tasks, how far they are from what is wanted, and the accounts' health."""
    from orchestrator.commands import status as command  # noqa: PLC0415 - see rule 1

    if watch and json:
        raise UsageError("--watch is for people and --json for machines: choose one")
    if json:
        command.print_json(config)
    elif watch:
        command.watch(config)
    else:
        command.show(config)


@app.command()
def explain(
    id_: Annotated[str, typer.Argument(metavar="ID", help="agent_task.id, or agent_command.id")],
    config: ConfigOption = None,
) -> None:
    """Say in one sentence what a task or a command is and what it waits for, then its history."""
    from orchestrator.commands import explain as command  # noqa: PLC0415 - see rule 1

    command.run(config, id_)


def _address(text: str) -> "Address":
    from orchestrator.settings import Address  # noqa: PLC0415 - see rule 1

    try:
        return Address.parse(text)
    except ValueError:
        raise UsageError(
            f'--listen: expected HOST:PORT, for example 127.0.0.1:9100, found "{text}"'
        ) from None
