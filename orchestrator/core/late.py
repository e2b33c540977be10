"""What an outcome may still add after it lost its fence: a handle, to its ledger row, and no more.

The row has moved on: somebody else took the call over, and has perhaps looked, stopped and started
anew. So nothing else of a late outcome counts. But a handle may be the only way to stop an agent.
"""

from dataclasses import replace

from orchestrator.core.model import Agent, Caps


def learn(agent: Agent, handle: str, caps: Caps) -> Agent:
    """Return the ledger row with a handle that turned up late, to be asked about anew.

    A handle is added, never overwritten. A row that had ended is open again, unless the handle is
    a name of ours: that is nothing new, and stopping by it might hit a later agent of the name.
    """
    if agent.vendor_task_id is not None:
        return agent
    known = replace(agent, vendor_task_id=handle)
    if caps.names_handle:
        return known
    return replace(
        known,
        ended_at=None,
        evidence=None,
        hinted_at=None,
        retry_at=None,
        attempt=0,
    )
