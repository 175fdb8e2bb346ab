"""The life of a round: every move there is, every one there is not, both sides of every bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from itertools import product
from types import MappingProxyType
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator_service.domain.rounds import (
    TRANSITIONS,
    AbortReason,
    Round,
    RoundKind,
    RoundState,
)
from flasc_core.errors import Reason, Refusal
from tests.builders import NOW, SECOND, a_download, a_policy, a_round, a_task, digest

LATER: Final = NOW + SECOND
DEADLINE: Final = NOW + timedelta(minutes=10)
TICK: Final = timedelta(microseconds=1)

State = RoundState


def _ticked(one: Round) -> Round:
    """A round that no tick moves stays as it is; that is how a tick refuses."""
    ticked = one.tick(LATER, one.policy.goal)
    if ticked is one:
        raise AssertionError("no transition")
    return ticked


# Each of a round's moves, as the way to ask for it. The goal of the builders' policy is 3.
MOVES: Final[Mapping[RoundState, Callable[[Round], Round]]] = MappingProxyType(
    {
        State.COLLECTING: lambda one: one.open(LATER, {"": a_download()}),
        State.CLOSING: _ticked,
        State.EVALUATED: _ticked,
        State.FOLDING: lambda one: one.begin_folding(digest("manifest")),
        State.PUBLISHED: lambda one: one.publish(LATER),
        State.ABORTED: lambda one: one.abort(LATER, AbortReason.OPERATOR),
    }
)
ALLOWED: Final = [(start, end) for start in State for end in TRANSITIONS[start]]
FORBIDDEN: Final = [
    (start, end) for start, end in product(State, MOVES) if end not in TRANSITIONS[start]
]


def a_collecting_round(**policy: object) -> Round:
    return a_round(a_task(), state=State.COLLECTING, policy=a_policy(**policy))


def an_evaluation_round() -> Round:
    return a_round(state=State.COLLECTING, kind=RoundKind.EVALUATION)


@pytest.mark.parametrize(("start", "end"), ALLOWED)
def test_every_move_of_the_table_is_made(start: RoundState, end: RoundState) -> None:
    evaluates = State.EVALUATED in (start, end)
    kind = RoundKind.EVALUATION if evaluates else RoundKind.TRAINING
    assert MOVES[end](a_round(state=start, kind=kind)).state is end


@pytest.mark.parametrize(("start", "end"), FORBIDDEN)
def test_no_other_move_is_made(start: RoundState, end: RoundState) -> None:
    with pytest.raises(AssertionError, match="no transition"):
        MOVES[end](a_round(state=start))


def test_the_table_is_the_diagram() -> None:
    assert {state: set(ends) for state, ends in TRANSITIONS.items()} == {
        State.PENDING: {State.COLLECTING, State.ABORTED},
        State.COLLECTING: {State.CLOSING, State.EVALUATED, State.ABORTED},
        State.CLOSING: {State.FOLDING, State.ABORTED},
        State.FOLDING: {State.PUBLISHED, State.ABORTED},
        State.PUBLISHED: set(),
        State.EVALUATED: set(),
        State.ABORTED: set(),
    }


def test_a_state_is_final_where_no_move_leads_on() -> None:
    final = {State.PUBLISHED, State.EVALUATED, State.ABORTED}
    assert {state for state in State if state.is_final} == final


def test_opening_sets_the_download_and_starts_the_window() -> None:
    opened = a_round(state=State.PENDING).open(LATER, {"": a_download(nnz=5)})
    assert opened.opened_at == LATER
    assert opened.deadline == LATER + opened.policy.window
    assert opened.downloads[""] == a_download(nnz=5)


def test_a_round_that_has_not_opened_has_no_deadline() -> None:
    assert a_round(state=State.PENDING).deadline is None


@pytest.mark.parametrize("state", set(State) - {State.COLLECTING})
def test_only_a_collecting_round_takes_updates(state: RoundState) -> None:
    with pytest.raises(Refusal) as refused:
        a_round(state=state).check_admits(LATER)
    assert refused.value.reason is Reason.ROUND_CLOSED


def test_updates_are_taken_until_just_before_the_deadline() -> None:
    a_collecting_round().check_admits(DEADLINE - TICK)


def test_an_update_at_the_deadline_is_too_late() -> None:
    collecting = a_collecting_round()
    with pytest.raises(Refusal) as refused:
        collecting.check_admits(DEADLINE)
    assert refused.value.reason is Reason.ROUND_CLOSED
    assert refused.value.facts["round_id"] == str(collecting.id)


@pytest.mark.parametrize("state", set(State) - {State.COLLECTING})
def test_a_tick_leaves_rounds_alone_that_do_not_collect(state: RoundState) -> None:
    before = a_round(state=state)
    assert before.tick(DEADLINE, 3) is before


def test_one_update_short_of_the_goal_the_round_goes_on() -> None:
    collecting = a_collecting_round()
    assert collecting.tick(DEADLINE - TICK, 2) is collecting


@pytest.mark.parametrize("reported", [3, 4])
def test_the_goal_closes_the_round_before_its_time(reported: int) -> None:
    closed = a_collecting_round().tick(NOW, reported)
    assert closed.state is State.CLOSING
    assert closed.closed_at == NOW
    assert closed.accepted_updates == reported
    assert closed.ended_at is None


def test_the_deadline_with_quorum_closes_the_round() -> None:
    closed = a_collecting_round().tick(DEADLINE, 2)
    assert closed.state is State.CLOSING
    assert closed.accepted_updates == 2


def test_the_deadline_below_quorum_aborts_the_round() -> None:
    aborted = a_collecting_round().tick(DEADLINE, 1)
    assert aborted.state is State.ABORTED
    assert aborted.abort_reason is AbortReason.QUORUM_MISSED
    assert aborted.closed_at == aborted.ended_at == DEADLINE
    assert aborted.accepted_updates is None


@pytest.mark.parametrize(("reported", "state"), [(2, State.ABORTED), (3, State.CLOSING)])
def test_the_minimum_cohort_counts_where_it_exceeds_the_quorum(
    reported: int, state: RoundState
) -> None:
    assert a_collecting_round(minimum_cohort=3).tick(DEADLINE, reported).state is state


@pytest.mark.parametrize(("reported", "state"), [(1, State.ABORTED), (2, State.CLOSING)])
def test_the_quorum_counts_where_it_exceeds_the_minimum_cohort(
    reported: int, state: RoundState
) -> None:
    assert a_collecting_round(minimum_cohort=1).tick(DEADLINE, reported).state is state


def test_an_evaluation_round_ends_at_its_goal() -> None:
    collecting = an_evaluation_round()
    assert collecting.tick(DEADLINE - TICK, 2) is collecting
    ended = collecting.tick(LATER, 3)
    assert ended.state is State.EVALUATED
    assert ended.closed_at == ended.ended_at == LATER
    assert ended.accepted_updates is None


def test_an_evaluation_round_ends_at_its_deadline_whoever_reported() -> None:
    assert an_evaluation_round().tick(DEADLINE, 0).state is State.EVALUATED


def test_aborting_keeps_the_time_a_round_closed() -> None:
    closing = a_round(state=State.CLOSING)
    aborted = closing.abort(closing.created_at + timedelta(hours=1), AbortReason.OPERATOR)
    assert aborted.closed_at == closing.closed_at
    assert aborted.ended_at == closing.created_at + timedelta(hours=1)


def test_publishing_keeps_what_closing_and_folding_fixed() -> None:
    folding = a_round(state=State.FOLDING)
    published = folding.publish(DEADLINE)
    assert published.accepted_updates == folding.accepted_updates == 3
    assert published.manifest_sha256 == digest("manifest")
    assert published.ended_at == DEADLINE


steps = st.lists(
    st.tuples(
        st.sampled_from(["open", "tick", "fold", "publish", "abort"]),
        st.integers(min_value=0, max_value=5),
        st.integers(min_value=0, max_value=400),
    ),
    max_size=30,
)


@given(kind=st.sampled_from(RoundKind), history=steps)
def test_whatever_happens_a_round_keeps_to_the_diagram(
    kind: RoundKind, history: list[tuple[str, int, int]]
) -> None:
    current = a_round(state=State.PENDING, kind=kind)
    now = NOW
    for move, reported, seconds in history:
        now += timedelta(seconds=seconds)
        moved = _try(current, move, reported, now)
        assert moved.state is current.state or moved.state in TRANSITIONS[current.state]
        if current.state.is_final:
            assert moved is current
        _check_sound(moved)
        current = moved


def _try(current: Round, move: str, reported: int, now: datetime) -> Round:
    moves: dict[str, Callable[[], Round]] = {
        "open": lambda: current.open(now, {"": a_download()}),
        "tick": lambda: current.tick(now, reported),
        "fold": lambda: current.begin_folding(digest("manifest")),
        "publish": lambda: current.publish(now),
        "abort": lambda: current.abort(now, AbortReason.OPERATOR),
    }
    try:
        return moves[move]()
    except AssertionError:
        return current


def _check_sound(one: Round) -> None:
    opened = one.state not in (State.PENDING, State.ABORTED)
    assert (one.opened_at is None) == (not one.downloads)
    assert one.opened_at is not None or not opened
    assert (one.abort_reason is not None) == (one.state is State.ABORTED)
    assert (one.ended_at is not None) == one.state.is_final
    if one.state in (State.CLOSING, State.FOLDING, State.PUBLISHED):
        assert one.kind is RoundKind.TRAINING
        assert one.accepted_updates is not None
        assert one.accepted_updates >= one.policy.least_updates
    if one.state is State.EVALUATED:
        assert one.kind is RoundKind.EVALUATION
    if one.state in (State.FOLDING, State.PUBLISHED):
        assert one.manifest_sha256 is not None
