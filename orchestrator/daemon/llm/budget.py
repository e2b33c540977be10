"""How much of what senders sent is held at a time, all requests together."""


class Budget:
    """A number of bytes, of which requests reserve what they need."""

    def __init__(self, most: int) -> None:
        self._left = most

    def reserve(self, size: int) -> int:
        """Return what is reserved for `size` bytes, at least one; 0: there is no room."""
        size = max(1, size)
        if size > self._left:
            return 0
        self._left -= size
        return size

    def shrink(self, reserved: int, size: int) -> int:
        """Give back what is reserved beyond `size` bytes; return what stays reserved."""
        kept = min(reserved, max(1, size))
        self.release(reserved - kept)
        return kept

    def release(self, reserved: int) -> None:
        """Give back what `reserve` returned."""
        self._left += reserved
