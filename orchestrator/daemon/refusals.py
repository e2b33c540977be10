"""What becomes of a command before a call is spent on it: the vendor has no call, or would refuse.

A payload's secrets are resolved to judge it, and again when it is sent.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.core.command import Command
from orchestrator.core.lane import Reason, Refusal
from orchestrator.daemon.book import AccountRuntime, Book
from orchestrator.providers.llm import payload_problems
from orchestrator.providers.spec import resolve_secrets


def find_refusals(
    runtime: AccountRuntime, book: Book, commands: Sequence[Command]
) -> Iterator[tuple[str, Refusal]]:
    """Find the commands, by their id, that are refused without asking the vendor."""
    for command in commands:
        if runtime.provider.command_action(command) is None:
            said = f"the vendor has no {command.kind.value}"
            yield command.id, Refusal(reason=Reason.UNSUPPORTED, message=said)
            continue
        said = _problems(runtime, book, command)
        if said:
            yield command.id, Refusal(reason=Reason.INVALID_PAYLOAD, message=said)


def _problems(runtime: AccountRuntime, book: Book, command: Command) -> str:
    if not isinstance(command.payload, Mapping):
        return "payload: expected an object that can be read, found one that is nested too deeply"
    payload, unknown = resolve_secrets(command.payload, book.secrets, "payload")
    wrong = unknown or payload_problems(payload)
    wanted = replace(command, payload=payload)
    return "; ".join(str(problem) for problem in wrong or runtime.provider.command_problems(wanted))
