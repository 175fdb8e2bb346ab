"""`flasc dp`: what differential privacy would cost, before a task is made."""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Annotated

import typer

from flasc_cli.errors import CliError, ExitCode
from flasc_cli.options import JsonOption
from flasc_cli.output import Json, print_fields, print_json

__all__ = ["app"]

app = typer.Typer(help="Differential privacy of a task that is to be.", no_args_is_help=True)


@app.callback()
def _dp() -> None:
    """Differential privacy of a task that is to be."""


@unique
class Mode(StrEnum):
    CAP = "cap"
    POISSON = "poisson"
    FIXED = "fixed"


@app.command()
def plan(
    *,
    parameters: Annotated[int, typer.Option(help="Trainable values of the adapter.", min=1)],
    cohort: Annotated[int, typer.Option(help="Updates per round: the task's goal.", min=1)],
    rounds: Annotated[int, typer.Option(help="Rounds to publish.", min=1)],
    mode: Annotated[
        Mode,
        typer.Option(
            help="cap: no assumption but how often a device takes part. poisson, fixed: the server "
            "draws each cohort from the enrolled devices."
        ),
    ] = Mode.CAP,
    participations: Annotated[
        int | None, typer.Option(help="cap: rounds that one device may be in.", min=1)
    ] = None,
    population: Annotated[
        int | None, typer.Option(help="poisson, fixed: devices that are enrolled.", min=1)
    ] = None,
    delta: Annotated[
        float, typer.Option(help="Well below one over the number of devices.", min=1e-30, max=0.01)
    ] = 1e-6,
    epsilon: Annotated[
        float | None, typer.Option(help="The budget, for which the noise is found.", min=1e-3)
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="The noise multiplier, for which epsilon is found.", min=0.1),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell noise, epsilon and the noise's share of what is learnt, for a task of this size.

    Give --epsilon or --noise. The noise is a multiple of the clip norm, whatever that is.
    """
    from aggregator_service.domain.privacy import PrivacyMode
    from flasc_cli.privacy_plan import PrivacyPlan

    if (epsilon is None) == (noise is None):
        raise CliError("give either --epsilon or --noise", ExitCode.USAGE)
    wanted, forbidden = (participations, population)
    if mode is not Mode.CAP:
        wanted, forbidden = forbidden, wanted
    if wanted is None or forbidden is not None:
        raise CliError(
            "mode cap needs --participations, modes poisson and fixed need --population; "
            "neither takes the other",
            ExitCode.USAGE,
        )
    if population is not None and population < cohort:
        raise CliError("--population must be at least --cohort", ExitCode.USAGE)
    modes = {
        Mode.CAP: PrivacyMode.PARTICIPATION_CAP,
        Mode.POISSON: PrivacyMode.POISSON,
        Mode.FIXED: PrivacyMode.FIXED_SIZE,
    }
    asked = PrivacyPlan(
        parameters=parameters,
        cohort=cohort,
        rounds=rounds,
        mode=modes[mode],
        max_participations=participations,
        population=population,
        delta=delta,
    )
    found = asked.with_noise(noise) if noise is not None else asked.within(epsilon or 0.0)
    fields: dict[str, Json] = {
        "mode": found.mode.value,
        "delta": delta,
        "noise_multiplier": found.noise_multiplier,
        "epsilon": found.epsilon,
        "epsilon_tight": found.tight_epsilon(),
        "noise_to_signal": found.noise_to_signal,
        "settings": found.settings(epsilon),
    }
    if as_json:
        print_json({**fields, "warnings": found.warnings()})
        return
    print_fields(fields)
    for warning in found.warnings():
        typer.echo(f"Warning: {warning}")
