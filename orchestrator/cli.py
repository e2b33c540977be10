"""The command line: what can be asked for, and what an error looks like to the one who asked.

Rule 1: this file parses and explains; each command's work is in `commands`, imported only when it
is asked for, so that `--help` and `run` start at once.
Rule 2: an `OrchestratorError` is one clear line on standard error and its own exit code (1 trouble,
2 usage, configuration or schema). A traceback is for `--debug`, $ORCHESTRATOR_DEBUG, and bugs.
"""

import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator import __version__
from orchestrator.commands import help_texts
from orchestrator.errors import OrchestratorError, UsageError

if TYPE_CHECKING:
    from orchestrator.setting_types import Address

NAME = "orchestrator"
"""However it was started: completion goes by it."""

app = typer.Typer(
    name=NAME,
    help=help_texts.PATH,
    epilog=help_texts.ENVIRONMENT,
    no_args_is_help=True,
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
        help="The configuration. Default: $ORCHESTRATOR_CONFIG, then "
        "/etc/orchestrator/config.toml.",
    ),
]


def _complete_account(context: typer.Context, incomplete: str) -> list[str]:
    from orchestrator.commands import completion  # noqa: PLC0415 - see rule 1

    return list(completion.accounts(context.params.get("config"), incomplete))


def _complete_task(context: typer.Context, incomplete: str) -> list[str]:
    from orchestrator.commands import completion  # noqa: PLC0415 - see rule 1

    return list(completion.tasks(context.params.get("config"), incomplete))


def main() -> None:
    """Run the command that the process was started with, and exit."""
    asked = _Asked()
    try:
        app(obj=asked, prog_name=NAME)
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
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say which it is."),
    ] = False,
) -> None:
    context.obj.debug = debug


@app.command(epilog=help_texts.RUN.text())
def run(
    config: ConfigOption = None,
    abandon: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ACCOUNT",
            autocompletion=_complete_account,
            help="Start although this account has agents and is not in the file any more: "
            "nobody will stop them. May be given more than once.",
        ),
    ] = None,
) -> None:
    """Run the daemon until SIGTERM.

    It makes the vendors agree with the rows, and keeps it so: starts what is wanted, stops what is
    not, and looks after what nobody knows of. SIGHUP reads the configuration again.
    """
    from orchestrator.commands import run as command  # noqa: PLC0415 - see rule 1

    command.run(config, tuple(abandon or ()))


@app.command(epilog=help_texts.MIGRATE.text())
def migrate(
    config: ConfigOption = None,
    *,
    sql: Annotated[bool, typer.Option("--sql", help="Print the statements, run none.")] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Try until the database can be reached (the service's).")
    ] = False,
) -> None:
    """Bring the database's schema to this version.

    Before the first start, and after each upgrade. It only adds, so daemons of the release before
    may go on meanwhile.
    """
    from orchestrator.commands import migrate as command  # noqa: PLC0415 - see rule 1

    if sql and wait:
        raise UsageError("--sql asks no database, so there is nothing to wait for: choose one")
    if sql:
        command.show(config)
    elif wait:
        command.run_when_reachable(config)
    else:
        command.run(config)


@app.command(epilog=help_texts.DEV.text())
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
    """Watch it work: everything in one process.

    An SQLite file under var/, simulated vendors, the daemon, and three example tasks that start
    before your eyes. Needs no keys and no configuration.
    """
    address = None if listen is None else _address(listen)
    from orchestrator.commands import dev as command  # noqa: PLC0415 - see rule 1

    command.run(command.Wanted(database=database, listen=address, examples=examples))


@app.command(epilog=help_texts.SIMULATE.text())
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
    speed: Annotated[
        float, typer.Option(metavar="N", min=0.001, help="Seconds of theirs in one.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the faults' lots.")] = 0,
    talk_every: Annotated[
        int, typer.Option(metavar="S", min=0, help="Their seconds between a user's sentences.")
    ] = 0,
) -> None:
    """Run the simulated vendors alone.

    For an application's own tests: they check signatures, limits and bodies as the vendors do, and
    /_sim shows and steers them.
    """
    address = _address(listen)
    from orchestrator.commands import simulate as command  # noqa: PLC0415 - see rule 1

    command.run(
        command.Wanted(
            listen=address, config=config, speed=speed, seed=seed, talk_every_s=talk_every
        )
    )


@app.command(epilog=help_texts.CHECK.text())
def check(config: ConfigOption = None) -> None:
    """Say what is wrong, and what to do about it.

    Configuration, secrets, database, schema, rights, and whether the vendors can be reached; a line
    for each. No signed request is sent.
    """
    from orchestrator.commands import check as command  # noqa: PLC0415 - see rule 1

    raise typer.Exit(command.run(config))


@app.command(epilog=help_texts.STATUS.text())
def status(
    config: ConfigOption = None,
    account: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", autocompletion=_complete_account, help="Only of this account."
        ),
    ] = None,
    *,
    trouble: Annotated[
        bool, typer.Option("--trouble", help="Only tasks in trouble, or that wait.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Show how everything stands.

    Tasks, trouble first; how many are not as desired; orphans; accounts that wait; who runs. It
    needs the database only, no vendor's keys.
    """
    if watch and json:
        raise UsageError("--watch is for people and --json for machines: choose one")
    from orchestrator.store.snapshot import Wanted  # noqa: PLC0415 - see rule 1

    wanted = Wanted(account=account, trouble=trouble, whole=json)
    if watch:
        from orchestrator.commands import watch as watching  # noqa: PLC0415 - see rule 1

        watching.watch(config, wanted)
        return
    from orchestrator.commands import status as command  # noqa: PLC0415 - see rule 1

    if json:
        command.print_json(config, wanted)
    else:
        command.show(config, wanted)


@app.command(epilog=help_texts.EXPLAIN.text())
def explain(
    id_: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            autocompletion=_complete_task,
            help="Of a task, a command or an orphan; or a TaskId, or a RequestId.",
        ),
    ],
    config: ConfigOption = None,
    *,
    json: Annotated[bool, typer.Option("--json", help="One JSON object, for machines.")] = False,
) -> None:
    """Say what one task is and waits for, and what happened to it.

    In a sentence, then its waiting commands, its history with the vendor's RequestIds, and the
    ledger of what it started.
    """
    from orchestrator.commands import explain as command  # noqa: PLC0415 - see rule 1

    if json:
        command.print_json(config, id_)
    else:
        command.show(config, id_)


@app.command(epilog=help_texts.TOKEN.text())
def token(
    account: Annotated[
        str,
        typer.Argument(
            metavar="ACCOUNT", autocompletion=_complete_account, help="Under [accounts]."
        ),
    ],
    user: Annotated[str, typer.Option(metavar="USER", help="The user_id of the client.")],
    room: Annotated[
        str | None,
        typer.Option(metavar="ROOM", help="Volcengine: the room_id of the only room it opens."),
    ] = None,
    expires_in: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, max=31_536_000, help="How long it holds.")
    ] = 86_400,
    config: ConfigOption = None,
    *,
    listen_only: Annotated[
        bool, typer.Option("--listen-only", help="Volcengine: may hear, not speak.")
    ] = False,
) -> None:
    """Print a token with which a client enters a room.

    Volcengine: an RTC token, signed with the account's app_key. Tencent: a UserSig, signed with its
    usersig_key. Needs neither database nor network.
    """
    from orchestrator.commands import token as command  # noqa: PLC0415 - see rule 1

    wanted = command.Wanted(
        account=account,
        user_id=user,
        room_id=room,
        life=timedelta(seconds=expires_in),
        listen_only=listen_only,
    )
    command.run(config, wanted)


def _address(text: str) -> "Address":
    from orchestrator.setting_types import Address  # noqa: PLC0415 - see rule 1

    try:
        return Address.parse(text)
    except ValueError:
        raise UsageError(
            f'--listen: expected HOST:PORT, for example 127.0.0.1:9100, found "{text}"'
        ) from None
