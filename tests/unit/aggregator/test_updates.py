"""An entry of the ledger: what takes it back, and when it still counts."""

from __future__ import annotations

import pytest

from aggregator_service.domain.updates import UpdateState
from tests.builders import an_update

State = UpdateState


def test_what_no_accumulator_holds_is_retracted_at_once() -> None:
    retracted = an_update(state=State.ACCEPTED).retract()

    assert retracted.state is State.RETRACTED
    assert retracted.payload is None


def test_what_an_accumulator_holds_keeps_its_payload_until_it_is_taken_out() -> None:
    folded = an_update(state=State.FOLDED)

    retracting = folded.retract()

    assert retracting.state is State.RETRACTING
    assert retracting.payload == folded.payload


@pytest.mark.parametrize("state", [State.SCRUBBED, State.RETRACTING, State.RETRACTED])
def test_nothing_else_is_retracted(state: UpdateState) -> None:
    with pytest.raises(AssertionError, match="no transition"):
        an_update(state=state).retract()


@pytest.mark.parametrize("state", State)
def test_an_update_counts_until_it_is_retracted(state: UpdateState) -> None:
    counts = state in (State.ACCEPTED, State.FOLDED, State.SCRUBBED)

    assert an_update(state=state).is_retracted != counts
