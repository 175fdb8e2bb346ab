"""Plans of private tasks: budgets that are kept, and plain words where noise is all there is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from aggregator_service.domain.accounting import gaussian_epsilon
from aggregator_service.domain.privacy import Privacy, PrivacyMode
from flasc_cli.main import app
from flasc_cli.privacy_plan import PrivacyPlan

CAPPED = ("--mode", "cap", "--participations", "5")
SIZE = ("--parameters", "3000", "--cohort", "1000", "--rounds", "100")


def planned(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["dp", "plan", *words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def a_plan(**changes: Any) -> PrivacyPlan:
    settings: dict[str, Any] = {
        "parameters": 300_000,
        "cohort": 100,
        "rounds": 200,
        "mode": PrivacyMode.PARTICIPATION_CAP,
        "max_participations": 5,
        "population": None,
        "delta": 1e-6,
    }
    return PrivacyPlan(**{**settings, **changes})


def test_noise_is_found_for_a_budget_and_its_settings_make_a_task() -> None:
    found = planned(*SIZE, *CAPPED, "--epsilon", "2")
    noise = found["noise_multiplier"]
    assert gaussian_epsilon(noise=noise, times=5, delta=1e-6) <= 2
    assert gaussian_epsilon(noise=noise - 0.01, times=5, delta=1e-6) > 2
    assert found["epsilon"] == found["epsilon_tight"] <= 2
    assert Privacy.from_json({"clip_norm": 1.0, **found["settings"]}).epsilon == 2


def test_epsilon_is_found_for_noise_and_the_budget_pays_for_it() -> None:
    found = planned(*SIZE, "--mode", "poisson", "--population", "100000", "--noise", "1")
    assert found["epsilon_tight"] < found["epsilon"] < found["settings"]["epsilon"]
    assert found["noise_multiplier"] == 1
    assert found["noise_to_signal"] == pytest.approx(0.0548, abs=1e-4)
    assert found["warnings"] == []


def test_a_fixed_cohort_is_planned_too() -> None:
    found = planned(*SIZE, "--mode", "fixed", "--population", "100000", "--noise", "1")
    assert found["mode"] == "FIXED_SIZE"
    assert found["epsilon_tight"] is None


def test_a_full_adapter_and_a_small_cohort_are_told_to_be_mostly_noise() -> None:
    warning = a_plan().warnings()[0]
    assert warning.startswith("mostly noise")
    assert "5.5 times" in warning
    assert a_plan(cohort=18_258).noise_to_signal == pytest.approx(0.03, rel=1e-3)
    assert "18,258" not in warning


@pytest.mark.parametrize(("cohort", "words"), [(548, "much noise"), (547, "mostly noise")])
def test_noise_as_large_as_the_signal_is_the_boundary(cohort: int, words: str) -> None:
    assert a_plan(cohort=cohort).warnings()[0].startswith(words)


def test_the_cohort_and_the_size_of_a_warning_would_end_it() -> None:
    mended = a_plan(cohort=1826, max_participations=1).warnings()
    assert "1,826" in a_plan().warnings()[0]
    assert mended == []
    assert "900 values" in a_plan().warnings()[0]
    assert a_plan(parameters=900, max_participations=1).warnings() == []


def test_a_careless_delta_and_a_large_epsilon_are_warned_of() -> None:
    sampled = a_plan(
        mode=PrivacyMode.POISSON, population=10_000, max_participations=None, parameters=1
    )
    assert sampled.warnings() == []
    careless = a_plan(
        mode=PrivacyMode.POISSON,
        population=10_000,
        max_participations=None,
        parameters=1,
        delta=1e-4,
    )
    assert "delta" in careless.warnings()[0]
    assert "promises little" in a_plan(parameters=1, max_participations=50).warnings()[0]


def test_people_read_a_warning_below_the_figures() -> None:
    words = ["dp", "plan", "--parameters", "300000", *SIZE[2:], *CAPPED, "--epsilon", "1"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert "noise_multiplier" in done.stdout
    assert "Warning: mostly noise" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        (*SIZE, *CAPPED),
        (*SIZE, *CAPPED, "--noise", "1", "--epsilon", "1"),
        (*SIZE, "--noise", "1"),
        (*SIZE, *CAPPED, "--population", "9000", "--noise", "1"),
        (*SIZE, "--mode", "poisson", "--noise", "1"),
        (*SIZE, "--mode", "fixed", "--population", "999", "--noise", "1"),
        (*SIZE, *CAPPED, "--noise", "0.01"),
    ],
)
def test_options_that_contradict_are_wrong_usage(words: tuple[str, ...]) -> None:
    done = CliRunner().invoke(app, ["dp", "plan", *words])
    assert done.exit_code != 0
