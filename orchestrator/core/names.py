"""Names that we choose at a vendor: drawn once, written to the ledger, never derived, never reused.

`<owner_prefix><installation><random>`: the prefix says which of the owner's systems it is, the
installation which database. Ours means both: two databases on one vendor account never take each
other's agents for their own. The whole is at most 32 bytes, the shortest limit of the three
vendors, and of an alphabet that all of them take.
"""

ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"
INSTALLATION_LENGTH = 5
RANDOM_LENGTH = 16
NAME_MAX = 32


def compose(prefix: str, installation: str, random: bytes) -> str:
    """Return a name from `RANDOM_LENGTH` random bytes, of each of which five bits are used."""
    drawn = "".join(ALPHABET[byte % len(ALPHABET)] for byte in random[:RANDOM_LENGTH])
    return f"{prefix}{installation}{drawn}"


def is_ours(name: str, prefix: str, installation: str) -> bool:
    """Return whether a name at a vendor was drawn by this installation."""
    head = prefix + installation
    tail = name[len(head) : len(head) + RANDOM_LENGTH]
    return name.startswith(head) and len(tail) == RANDOM_LENGTH and set(tail) <= set(ALPHABET)


def is_of_owner(name: str, prefix: str) -> bool:
    """Return whether a name at a vendor was drawn by any installation of this owner."""
    tail = name[len(prefix) :]
    length = INSTALLATION_LENGTH + RANDOM_LENGTH
    return name.startswith(prefix) and len(tail) == length and set(tail) <= set(ALPHABET)


def stream_id(name: str, try_: int) -> str:
    """Return the stream id of one try: ZEGO wants a new one where the agent's user id stays."""
    return f"{name}_s{try_}"
