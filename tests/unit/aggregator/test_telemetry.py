"""The service's log: one line per event, whoever it is of."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from aggregator_service.telemetry import configure_logging


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    # pytest's own handlers stay open: they are put back.
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_libraries_log_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(as_json=True)
    structlog.get_logger("own").info("round_opened", round=3)
    with structlog.contextvars.bound_contextvars(rpc="CheckIn"):
        logging.getLogger("some.library").warning("%s went away", "a peer")
    own, of_library = map(json.loads, capsys.readouterr().err.splitlines())
    assert own.items() >= {"event": "round_opened", "level": "info", "round": 3}.items()
    assert (
        of_library.items()
        >= {
            "event": "a peer went away",
            "level": "warning",
            "logger": "some.library",
            "rpc": "CheckIn",
        }.items()
    )
    assert own.keys() & of_library.keys() >= {"timestamp"}


@pytest.mark.parametrize("level", ["DEBUG", "INFO"])
def test_libraries_do_not_chat(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(level=level, as_json=True)
    logging.getLogger("some.library").info("starting")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("as_json", [True, False])
def test_an_error_s_traceback_shows_no_variables(
    as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(as_json=as_json)
    for log in (structlog.get_logger("own"), logging.getLogger("some.library")):
        credential = "kept to itself"
        try:
            int(credential[:0])
        except ValueError:
            log.exception("failed")
        shown = capsys.readouterr().err
        assert "ValueError: invalid literal" in shown
        assert credential not in shown
        if as_json:
            assert "Traceback" in json.loads(shown)["exception"]
