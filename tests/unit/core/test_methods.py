"""What FLASC sends down and asks back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flasc_core.errors import Reason, Refusal
from flasc_core.layout import Role
from flasc_core.methods import (
    Flasc,
    KeepLargest,
    UploadRule,
    apply_upload_rule,
    check_upload,
    mask_composition,
)
from flasc_core.pb.v1 import device_service_pb2, layout_pb2
from tests.unit.core.builders import a_layout, a_vector, finite_floats, selected_by

LORA = frozenset({Role.LORA_A, Role.LORA_B})
HEAD = frozenset({Role.HEAD})
EVERYTHING = LORA | HEAD


def a_rule(count: int = 3, *, clip_norm: float = 0.0) -> UploadRule:
    return UploadRule(groups=(KeepLargest(roles=EVERYTHING, count=count),), clip_norm=clip_norm)


def an_update(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_dense_lora_sends_every_coordinate_both_ways() -> None:
    method, layout = Flasc(download_density=1, upload_density=1), a_layout()
    weights = np.zeros(10, dtype=np.float32)
    assert selected_by(method, layout, weights).nnz == 10
    assert method.plan(layout, 0).upload.max_count == 10


def test_a_zero_inside_the_download_mask_is_sent_as_a_zero() -> None:
    weights = an_update(0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    download = selected_by(Flasc(download_density=0.3, upload_density=1), a_layout(), weights)
    assert download == a_vector([0, 1, 2], [0.5, 0, 0])


@pytest.mark.parametrize("head_density", [None, 0.5])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_download_has_as_many_values_as_its_groups_say(
    head_density: float | None, number: int
) -> None:
    method = Flasc(download_density=0.8, upload_density=1, head_density=head_density, decay=0.5)
    groups = method.plan(a_layout(), number).download
    for weights in (np.zeros(10, dtype=np.float32), an_update(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)):
        selected = selected_by(method, a_layout(), weights, number)
        assert selected.nnz == sum(group.count_in(a_layout()) for group in groups)


def test_training_starts_from_zero_wherever_nothing_was_sent() -> None:
    weights = an_update(1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
    download = selected_by(Flasc(download_density=0.2, upload_density=1), a_layout(), weights)
    assert download.to_dense().tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 9, 10]


def test_without_a_head_density_the_head_is_ranked_with_the_rest() -> None:
    method, layout = Flasc(download_density=0.2, upload_density=0.5), a_layout()
    weights = an_update(9, 8, 7, 6, 5, 4, 3, 2, 1, 1)
    assert selected_by(method, layout, weights).indices.tolist() == [0, 1]
    assert method.plan(layout, 0).upload == UploadRule(
        groups=(KeepLargest(roles=EVERYTHING, count=5),)
    )


def test_with_a_head_density_the_head_is_ranked_alone_both_ways() -> None:
    method = Flasc(download_density=0.25, upload_density=0.5, head_density=0.5)
    layout = a_layout()
    weights = an_update(9, 8, 7, 6, 5, 4, 3, 2, 0, -1)
    assert selected_by(method, layout, weights).indices.tolist() == [0, 1, 9]
    assert method.plan(layout, 0).upload.groups == (
        KeepLargest(roles=LORA, count=4),
        KeepLargest(roles=HEAD, count=1),
    )


def test_a_head_density_means_nothing_to_a_layout_without_a_head() -> None:
    method = Flasc(download_density=0.5, upload_density=0.5, head_density=0.001)
    layout = a_layout(head=0)
    method.check(layout, devices_draw_base=False)
    assert method.plan(layout, 0).upload.groups == (KeepLargest(roles=LORA, count=4),)


def test_densities_decay_in_steps_and_keep_at_least_one_coordinate() -> None:
    method = Flasc(download_density=1, upload_density=0.5, decay=0.5, decay_every=2)
    layout = a_layout(a=8, b=8, head=0)
    counts = [method.plan(layout, number).upload.max_count for number in (0, 1, 2, 3, 4, 100_000)]
    assert counts == [8, 8, 4, 4, 2, 1]


@pytest.mark.parametrize(
    ("upload_decay", "uploads"),
    [
        (None, [32, 32, 16, 16, 8]),
        (0.25, [32, 32, 8, 8, 2]),
        # As the authors' script has it, whose decay is of downloads alone.
        (1.0, [32, 32, 32, 32, 32]),
    ],
)
def test_uploads_decay_by_a_factor_of_their_own_where_they_have_one(
    upload_decay: float | None, uploads: list[int]
) -> None:
    method = Flasc(
        download_density=1,
        upload_density=0.5,
        decay=0.5,
        upload_decay=upload_decay,
        decay_every=2,
    )
    layout = a_layout(a=32, b=32, head=0)
    plans = [method.plan(layout, number) for number in range(5)]
    assert [plan.download[0].count_in(layout) for plan in plans] == [64, 64, 32, 32, 16]
    assert [plan.upload.max_count for plan in plans] == uploads


def test_the_head_density_does_not_decay() -> None:
    method = Flasc(download_density=1, upload_density=1, head_density=0.5, decay=0.1)
    assert method.plan(a_layout(a=50, b=50, head=10), 1).upload.groups == (
        KeepLargest(roles=LORA, count=10),
        KeepLargest(roles=HEAD, count=5),
    )


def test_a_head_may_go_down_whole_and_come_up_ranked_with_the_rest() -> None:
    method = Flasc(download_density=0.5, upload_density=0.5, head_density=1, upload_ranks_head=True)
    plan = method.plan(a_layout(a=50, b=50, head=10), 0)
    assert plan.download == (KeepLargest(roles=LORA, count=50), KeepLargest(roles=HEAD, count=10))
    assert plan.upload.groups == (KeepLargest(roles=LORA | HEAD, count=55),)


@pytest.mark.parametrize(
    ("density", "refused"), [(0.1, False), (math.nextafter(0.1, 0), True), (0.05, True)]
)
def test_a_density_that_keeps_nothing_is_refused(density: float, refused: bool) -> None:
    layout = a_layout()
    for method in (
        Flasc(download_density=density, upload_density=1),
        Flasc(download_density=1, upload_density=density),
    ):
        if refused:
            with pytest.raises(Refusal) as refusal:
                method.check(layout, devices_draw_base=False)
            assert refusal.value.reason is Reason.CONFIGURATION
        else:
            method.check(layout, devices_draw_base=False)


@pytest.mark.parametrize(("density", "refused"), [(0.5, False), (0.49, True)])
def test_a_head_density_that_keeps_nothing_is_refused(density: float, refused: bool) -> None:
    method = Flasc(download_density=1, upload_density=1, head_density=density)
    if refused:
        with pytest.raises(Refusal, match="keeps none of 2"):
            method.check(a_layout(head=2), devices_draw_base=False)
    else:
        method.check(a_layout(head=2), devices_draw_base=False)


@pytest.mark.parametrize(
    "settings_",
    [
        {"download_density": 0},
        {"download_density": 1.01},
        {"upload_density": -0.1},
        {"upload_density": math.nan},
        {"head_density": 0},
        {"head_density": 2},
        {"decay": 0},
        {"decay": 1.5},
        {"upload_decay": 0},
        {"upload_decay": 1.5},
        {"upload_decay": math.nan},
        {"decay_every": 0},
        {"clip_norm": -1},
        {"clip_norm": math.inf},
        {"clip_norm": math.nan},
    ],
)
def test_settings_out_of_range_are_refused(settings_: dict[str, float]) -> None:
    with pytest.raises(Refusal) as refusal:
        Flasc(**{"download_density": 1, "upload_density": 1, **settings_})  # type: ignore[arg-type]
    assert refusal.value.reason is Reason.CONFIGURATION


def test_each_group_keeps_its_own_largest() -> None:
    rule = UploadRule(
        groups=(
            KeepLargest(roles=HEAD, count=1),
            KeepLargest(roles=frozenset({Role.LORA_A}), count=2),
        )
    )
    sent = apply_upload_rule(a_layout(), an_update(1, -4, 3, 2, 90, 80, 70, 60, 5, 7), rule)
    assert sent == a_vector([1, 2, 9], [-4, 3, 7])


@pytest.mark.parametrize(("zeros", "sent"), [(1, 10), (2, 8)])
def test_zeros_are_sent_while_they_are_less_than_a_fifth(zeros: int, sent: int) -> None:
    update = np.ones(10, dtype=np.float32)
    update[:zeros] = 0
    assert apply_upload_rule(a_layout(), update, a_rule(10)).nnz == sent


def test_what_did_not_change_is_not_sent() -> None:
    sent = apply_upload_rule(a_layout(), an_update(0, 0, 0, 0, 0, 0, 0, 0, 0, 5), a_rule(3))
    assert sent == a_vector([9], [5])


def test_an_update_of_nothing_is_one_zero() -> None:
    nothing = np.zeros(10, dtype=np.float32)
    assert apply_upload_rule(a_layout(), nothing, a_rule(3)) == a_vector([0], [0])


@pytest.mark.parametrize(
    ("composition", "refused"),
    [
        ({Role.LORA_A: 1, Role.LORA_B: 2}, None),
        ({Role.LORA_A: 3, Role.HEAD: 2}, None),
        ({Role.LORA_A: 2, Role.LORA_B: 2}, "4 values of LORA_A, LORA_B; this round takes 3"),
        ({Role.HEAD: 3}, "3 values of HEAD; this round takes 2"),
    ],
)
def test_a_group_takes_no_more_than_its_count(
    composition: dict[Role, int], refused: str | None
) -> None:
    groups = (KeepLargest(roles=LORA, count=3), KeepLargest(roles=HEAD, count=2))
    counts = dict.fromkeys(Role, 0) | composition
    if refused is None:
        check_upload(counts, UploadRule(groups=groups))
        return
    with pytest.raises(Refusal, match=refused) as caught:
        check_upload(counts, UploadRule(groups=groups))
    assert caught.value.reason is Reason.K_BUDGET


def test_a_role_of_no_group_is_not_taken() -> None:
    rule = UploadRule(groups=(KeepLargest(roles=HEAD, count=2),))
    with pytest.raises(Refusal, match="1 values of LORA_B; this round takes none"):
        check_upload(dict.fromkeys(Role, 0) | {Role.HEAD: 2, Role.LORA_B: 1}, rule)


def test_clipping_looks_only_at_what_is_sent() -> None:
    update = an_update(3, 4, 2, 2, 2, 2, 2, 2, 2, 2)
    assert apply_upload_rule(a_layout(), update, a_rule(2, clip_norm=5)) == a_vector([0, 1], [3, 4])
    clipped = apply_upload_rule(a_layout(), update, a_rule(2, clip_norm=2.5))
    assert clipped == a_vector([0, 1], [1.5, 2])


@given(
    hnp.arrays(np.float32, 10, elements=finite_floats()),
    st.integers(1, 10),
    st.floats(1e-3, 1e3),
)
def test_what_is_sent_stays_within_the_rule_s_count_and_norm(
    update: np.ndarray, count: int, clip_norm: float
) -> None:
    free = apply_upload_rule(a_layout(), update, a_rule(count))
    clipped = apply_upload_rule(a_layout(), update, a_rule(count, clip_norm=clip_norm))
    moved = min(count, int(np.count_nonzero(update)))
    assert free.nnz == (max(1, moved) if moved <= 0.8 * count else count)
    # Clipping may round a value to zero.
    assert clipped.nnz <= free.nnz
    assert np.isin(clipped.indices, free.indices).all()
    assert np.linalg.norm(clipped.values.astype(np.float64)) <= clip_norm * (1 + 1e-6)
    if np.linalg.norm(free.values.astype(np.float64)) < clip_norm * (1 - 1e-6):
        assert clipped == free


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("position", [0, 9])
def test_a_value_that_is_not_finite_is_refused_even_where_it_is_not_sent(
    bad: float, position: int
) -> None:
    update = np.arange(1, 11, dtype=np.float32)
    update[position] = bad
    rule = UploadRule(groups=(KeepLargest(roles=frozenset({Role.LORA_B}), count=1),))
    with pytest.raises(Refusal) as refusal:
        apply_upload_rule(a_layout(), update, rule)
    assert refusal.value.reason is Reason.NON_FINITE


def test_a_rule_may_ask_for_all_there_is_and_no_more() -> None:
    update = np.ones(10, dtype=np.float32)
    assert apply_upload_rule(a_layout(), update, a_rule(10)).nnz == 10
    with pytest.raises(Refusal) as refusal:
        apply_upload_rule(a_layout(), update, a_rule(11))
    assert refusal.value.reason is Reason.K_BUDGET


def test_an_update_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="shape"):
        apply_upload_rule(a_layout(), np.ones(11, dtype=np.float32), a_rule())


def test_a_mask_is_counted_by_role() -> None:
    layout = a_layout(a=4, b=4, head=2)
    assert mask_composition(layout, np.array([0, 3, 4, 9])) == {
        Role.LORA_A: 2,
        Role.LORA_B: 1,
        Role.HEAD: 1,
    }
    assert mask_composition(layout, np.array([], dtype=np.int64)) == dict.fromkeys(Role, 0)


def test_an_upload_rule_travels_as_a_message() -> None:
    rule = (
        Flasc(download_density=1, upload_density=0.5, head_density=1, clip_norm=0.25)
        .plan(a_layout(), 0)
        .upload
    )
    data = rule.to_message().SerializeToString()
    assert UploadRule.from_message(device_service_pb2.UploadRule.FromString(data)) == rule


def a_rule_message(**changes: object) -> device_service_pb2.UploadRule:
    group: dict[str, object] = {"roles": [layout_pb2.TENSOR_ROLE_HEAD], "count": 1}
    group |= {key: value for key, value in changes.items() if key != "clip_norm"}
    return device_service_pb2.UploadRule(
        groups=[device_service_pb2.KeepLargest(**group)],  # type: ignore[arg-type]
        clip_norm=float(str(changes.get("clip_norm", 0))),
    )


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (device_service_pb2.UploadRule(), Reason.FIELD_REQUIRED),
        (a_rule_message(roles=[]), Reason.FIELD_REQUIRED),
        (a_rule_message(roles=[0]), Reason.FIELD_REQUIRED),
        (a_rule_message(roles=[99]), Reason.UNKNOWN_ENUM),
        (a_rule_message(count=0), Reason.FIELD_RANGE),
        (a_rule_message(clip_norm=-1), Reason.FIELD_RANGE),
        (a_rule_message(clip_norm="nan"), Reason.FIELD_RANGE),
        (
            device_service_pb2.UploadRule(groups=[*a_rule_message().groups] * 2),
            Reason.FIELD_RANGE,
        ),
    ],
)
def test_a_bad_upload_rule_is_refused(
    message: device_service_pb2.UploadRule, reason: Reason
) -> None:
    with pytest.raises(Refusal) as refusal:
        UploadRule.from_message(message)
    assert refusal.value.reason is reason
