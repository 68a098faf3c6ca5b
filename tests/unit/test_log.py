"""Output by position: each byte once, each gap with its size."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atemporal.model import LOG_TAIL_LIMIT, Attempt
from atemporal.model.log import LogChunk, LogPart, parts, tail_of
from atemporal.states import AttemptState, Reason
from tests.launches import LAUNCH

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def ended(tail: bytes | None, *, log_bytes: int | None = None, ran: bool = True) -> Attempt:
    return Attempt(
        job_id=UUID(int=7),
        number=1,
        state=AttemptState.EXITED,
        reason=Reason.COMPLETED if ran else Reason.PULL_FAILED,
        launch=LAUNCH,
        created_at=NOW,
        running_at=NOW if ran else None,
        exited_at=NOW,
        log_tail=tail,
        log_bytes=log_bytes,
    )


class TestTail:
    @pytest.mark.parametrize(
        ("attempt", "start"),
        [
            (ended(b"abc", log_bytes=100), 97),
            (ended(b"abc"), 0),
            (ended(b"x" * LOG_TAIL_LIMIT), -1),
            (ended(b"x" * LOG_TAIL_LIMIT, log_bytes=LOG_TAIL_LIMIT), 0),
            # A count that can not be right counts for nothing.
            (ended(b"abc", log_bytes=2), 0),
            # docker's words in the place of output
            (ended(b"x" * LOG_TAIL_LIMIT, ran=False), 0),
        ],
    )
    def test_its_place_follows_from_what_is_known(self, attempt: Attempt, start: int) -> None:
        tail = tail_of(attempt)
        assert tail is not None
        assert (tail.start, tail.data) == (start, attempt.log_tail)

    def test_without_output_there_is_none(self) -> None:
        assert tail_of(ended(None, log_bytes=0)) is None


def shown(*chunks: tuple[int, bytes], after: int = 0, **more: Any) -> list[tuple[Any, ...]]:
    given = {"tail": None, "end": 0, **more}
    return [tuple(one) for one in parts((LogChunk(*one) for one in chunks), after=after, **given)]


class TestParts:
    def test_what_belongs_together_is_one_part(self) -> None:
        assert shown((0, b"ab"), (2, b"cd"), (9, b"j")) == [(0, b"abcd", 0), (9, b"j", 5)]

    def test_the_first_bytes_may_be_gone(self) -> None:
        assert shown((5, b"f")) == [(5, b"f", 5)]

    def test_a_chunk_without_bytes_says_nothing(self) -> None:
        assert shown((0, b"a"), (5, b"")) == [(0, b"a", 0)]

    def test_who_goes_on_gets_the_rest_of_a_chunk(self) -> None:
        assert shown((0, b"abcd"), (9, b"j"), after=3) == [(3, b"d", 0), (9, b"j", 5)]
        assert shown((0, b"abcd"), after=4) == []

    def test_the_end_comes_behind_what_was_sent_without_what_is_in_both(self) -> None:
        tail = LogChunk(2, b"cdef")
        assert shown((0, b"abc"), tail=tail) == [(0, b"abcdef", 0)]
        assert shown((0, b"a"), tail=LogChunk(3, b"d")) == [(0, b"a", 0), (3, b"d", 2)]
        assert shown(tail=tail) == [(2, b"cdef", 2)]
        assert shown(tail=tail, after=6) == []

    def test_an_end_without_a_place_is_said_to_be_one(self) -> None:
        tail = LogChunk(-1, b"yz")
        assert shown((4, b"e"), tail=tail, end=5) == [(4, b"e", 4), (5, b"yz", None)]
        assert shown(tail=tail, end=5, after=6) == [(6, b"z", 0)]
        assert shown(tail=tail, end=5, after=7) == []

    @given(
        output=st.binary(min_size=1, max_size=60),
        cuts=st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=6),
        tail_size=st.integers(0, 20),
        steps=st.lists(st.integers(0, 60), max_size=4),
    )
    def test_each_byte_comes_once_wherever_one_goes_on(
        self, output: bytes, cuts: list[tuple[int, int]], tail_size: int, steps: list[int]
    ) -> None:
        chunks, position = [], 0
        for start, size in sorted(cuts):
            begin = max(start, position)
            if data := output[begin : begin + size]:
                chunks.append(LogChunk(begin, data))
                position = begin + len(data)
        begin = len(output) - min(tail_size, len(output))
        tail = LogChunk(begin, output[begin:]) if tail_size else None
        whole = parts(chunks, after=0, tail=tail, end=position)
        seen: list[LogPart] = []
        after = 0
        # In pieces: as far as a page goes, which may end anywhere.
        for stop in [*sorted(steps), len(output)]:
            page = parts(
                [LogChunk(c.start, c.data[: max(0, stop - c.start)]) for c in chunks],
                after=after,
                tail=tail if stop == len(output) else None,
                end=position,
            )
            seen += page
            after = page[-1].start + len(page[-1].data) if page else after
        assert b"".join(one.data for one in seen) == b"".join(one.data for one in whole)
        reached = 0
        for one in seen:
            assert one.missing == one.start - reached
            assert output[one.start : one.start + len(one.data)] == one.data
            reached = one.start + len(one.data)
