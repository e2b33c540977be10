"""Statements about the rate limit: one row for each account and action, changed by swapping.

No transaction that does anything else ever touches `rate_limit`, so nothing waits for it.
"""

import json
from datetime import UTC, datetime

from sqlalchemy import Connection, bindparam, select, update

from orchestrator.core.bucket import KEPT_WINDOWS, Bucket, Slot
from orchestrator.store.engine import dialect_of, now, upsert
from orchestrator.store.schema import rate_limit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_READ = select(rate_limit.c.slots, rate_limit.c.version).where(
    rate_limit.c.account == bindparam("account"), rate_limit.c.action == bindparam("action")
)
_SWAP = (
    update(rate_limit)
    .where(
        rate_limit.c.account == bindparam("b_account"),
        rate_limit.c.action == bindparam("b_action"),
        rate_limit.c.version == bindparam("b_version"),
    )
    .values(slots=bindparam("b_slots"), version=bindparam("b_version") + 1)
)


def to_slot(instant: datetime) -> Slot:
    """Return an instant as whole microseconds since 1970."""
    delta = instant - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def read(connection: Connection, account: str, action: str, limit: int) -> tuple[Bucket, int, Slot]:
    """Return the bucket, its version and the present; make the row if it is not there."""
    key = {"account": account, "action": action}
    found = connection.execute(_READ, key).first()
    if found is None:
        make = upsert(rate_limit, dialect_of(connection)).on_conflict_do_nothing()
        connection.execute(make, key)
        found = connection.execute(_READ, key).one()
    slots, version = found
    bucket = Bucket(limit=limit, slots=tuple(json.loads(slots))[-KEPT_WINDOWS * limit :])
    return bucket, version, to_slot(now(connection))


def swap(connection: Connection, account: str, action: str, version: int, bucket: Bucket) -> bool:
    """Write the bucket if nobody else has since `version`; return whether it was written."""
    values = {
        "b_account": account,
        "b_action": action,
        "b_version": version,
        "b_slots": json.dumps(bucket.slots),
    }
    return connection.execute(_SWAP, values).rowcount == 1
