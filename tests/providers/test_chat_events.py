import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.providers.chat_events import EventReader, TooLong
from tests.providers.chat_payloads import SPOKEN

MAX_BYTES = 1_000


def events_of(*pieces: bytes, max_bytes: int = MAX_BYTES) -> list[bytes] | None:
    """The events of a stream that comes in these pieces; null if it was too long."""
    reader = EventReader(max_bytes)
    try:
        return [event for piece in pieces for event in reader.feed(piece)]
    except TooLong:
        return None


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"", []),
        (b"data: a\n\n", [b"a"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
        (b"data: a\n\r\ndata: b\r\n\n", [b"a", b"b"]),
        (b"data:a\n\n", [b"a"]),
        (b"data:  a \n\n", [b" a "]),
        (b"data: a:b\n\n", [b"a:b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data\ndata\n\n", [b"\n"]),
        (b"data: a\nevent: x\nid: 5\nretry: 9\n: comment\ndata: b\n\n", [b"a\nb"]),
        (b": keep-alive\n\n: keep-alive\n\ndata: a\n\n", [b"a"]),
        (b"data:\n\n", []),
        (b"data\n\n", []),
        (b"\n\n\n", []),
        (b"event: ping\n\n", []),
        (b"datum: a\n\n", []),
        (b" data: a\n\n", []),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\n", []),
        (b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"]),
        (b"data: \xe2\x80\xa8\x0b\x0c\x85\n\n", [b"\xe2\x80\xa8\x0b\x0c\x85"]),
        (b"data: whole\n\ndata: cut off", [b"whole"]),
        (b"data: whole\n\ndata: cut off\n", [b"whole"]),
        (b"<html>\n<body>502 Bad Gateway</body>\n</html>\n\n", []),
    ],
)
def test_events_however_they_are_cut(stream: bytes, events: list[bytes]) -> None:
    assert events_of(stream) == events
    assert events_of(*(stream[i : i + 1] for i in range(len(stream)))) == events
    for at in range(len(stream)):
        assert events_of(stream[:at], b"", stream[at:]) == events


def test_an_event_is_told_with_its_last_byte() -> None:
    reader = EventReader(MAX_BYTES)
    assert reader.feed(b"data: a\r") == []
    assert reader.feed(b"\n") == []
    assert reader.feed(b"\r") == [b"a"]
    assert reader.feed(b"\ndata: b\n\n") == [b"b"]


_bits = st.sampled_from(
    [b"data:", b"data: ", b"a", b"bc", b":", b"\n", b"\r", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b" "]
)


@given(st.lists(_bits | st.binary(max_size=3), max_size=30), st.data())
def test_any_split_gives_the_same_events(bits: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(bits)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
    ends = [*cuts, len(stream)]
    pieces = [stream[start:end] for start, end in zip([0, *cuts], ends, strict=True)]
    for limit in (MAX_BYTES, 8):
        assert events_of(*pieces, max_bytes=limit) == events_of(stream, max_bytes=limit)


@given(st.lists(st.binary(min_size=1).filter(lambda b: not set(b) & set(b"\r\n")), max_size=5))
def test_what_is_written_is_read(events: list[bytes]) -> None:
    stream = b"".join(b"data: %b\n\n" % event for event in events)
    assert events_of(stream) == events


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b""])
@pytest.mark.parametrize("size", [1, MAX_BYTES])
def test_a_line_that_is_too_long_is_an_error_at_once(end: bytes, size: int) -> None:
    line = b"data: ".ljust(MAX_BYTES, b"a")
    pieces = [line[i : i + size] for i in range(0, len(line), size)]
    assert events_of(*pieces, end) == ([line[6:]] if end else [])
    assert events_of(*pieces, b"a", end) is None


def test_an_event_of_many_lines_is_bounded_too() -> None:
    line = b"data: " + b"a" * 100 + b"\n"
    assert events_of(line * 9, b"\n") == [b"\n".join([b"a" * 100] * 9)]
    assert events_of(line * 10, b"\n") is None


def test_what_is_not_kept_does_not_count() -> None:
    noise = b": keep-alive\nid: 5\n" * MAX_BYTES
    assert events_of(noise, b"data: a\n\n", noise, b"data: b\n\n") == [b"a", b"b"]


def test_a_long_stream_of_short_events_is_never_too_long() -> None:
    assert events_of(*[b"data: abc\n\n"] * MAX_BYTES) == [b"abc"] * MAX_BYTES


def test_too_long_says_nothing_of_what_came() -> None:
    with pytest.raises(TooLong) as error:
        EventReader(10).feed(f"data: {SPOKEN}\n\n".encode())
    assert str(error.value) == "an event of the stream is too long"
