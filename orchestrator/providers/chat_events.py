"""Server-sent events: bytes in, the data of each event out, however the bytes were cut.

Rule 1: an event is told with its empty line, not a byte later. One that has none is never told: who
knows what it lacks.
Rule 2: no more is held than one event, and that is bounded.

Source: html.spec.whatwg.org, 9.2.6 "Interpreting an event stream".
"""

_BOM = b"\xef\xbb\xbf"


class TooLong(ValueError):  # noqa: N818  # what is wrong, as in the rest of the vocabulary
    """More came than may be held. Says nothing of what it was."""


class EventReader:
    """Reads one stream of events, incrementally. `event`, `id` and `retry` are of no interest."""

    def __init__(self, max_bytes: int) -> None:
        """Hold at most `max_bytes` of an event: its data, and the line that is coming in."""
        self._max_bytes = max_bytes
        self._line = bytearray()
        """The line that is coming in."""
        self._data: list[bytes] = []
        """The data of the event that is coming in."""
        self._held = 0
        """Bytes of `_data`, a line's end after each."""
        self._is_first_line = True
        self._is_after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        r"""Return the data of each event that is whole now. Raises `TooLong`; then feed no more.

        A line ends in \n, \r or \r\n. Since \r counts at once, its \n may be in the next piece.
        """
        if not data:
            return []
        if self._is_after_cr:
            data = data.removeprefix(b"\n")
        self._is_after_cr = data.endswith(b"\r")
        events = []
        for piece in data.splitlines(keepends=True):
            text = piece.rstrip(b"\r\n")
            self._line += text
            if self._held + len(self._line) > self._max_bytes:
                raise TooLong("an event of the stream is too long")
            if len(text) == len(piece):
                break
            event = self._end_line()
            if event:
                events.append(event)
        return events

    def _end_line(self) -> bytes:
        """Take in the line, and return the data of the event that it ends, empty if none."""
        line = bytes(self._line)
        self._line.clear()
        if self._is_first_line:
            line = line.removeprefix(_BOM)
            self._is_first_line = False
        if not line:
            return self._end_event()
        # A comment is a line whose field has no name.
        name, _, value = line.partition(b":")
        if name == b"data":
            value = value.removeprefix(b" ")
            self._data.append(value)
            self._held += len(value) + 1  # an empty one is held as well
        return b""

    def _end_event(self) -> bytes:
        event = b"\n".join(self._data)
        self._data.clear()
        self._held = 0
        return event
