"""Fuzz the decoder with atheris, guided by coverage, from the kept corpus.

Needs the `fuzz` extra. From the repository root, for five minutes:

    python -m tests.fuzz.run -max_total_time=300

Inputs that reach new code go to build/fuzz; one that raises anything but a refusal, or fares
otherwise with the reference decoder, ends the run and is written beside it. What is worth
keeping is merged into the corpus by

    python -m tests.fuzz.run -merge=1 tests/fuzz/corpus build/fuzz

and what comes of it recorded by `python -m tests.fuzz.target`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["flasc_core.wire", "flasc_core.sparse"]):
    from tests.fuzz.target import CORPUS, LIMITS, read, update_of
    from tests.support.reference import check_agreement

BUILD: Final = Path("build")
FOUND: Final = BUILD / "fuzz"


def one_input(data: bytes) -> None:
    payload = update_of(data)
    read(payload)
    # The reference decoder is slow; one in sixteen is enough, chosen by the input itself.
    if sum(payload[-4:]) % 16 == 0:
        check_agreement(payload, LIMITS)


def main() -> None:
    # Long enough for more fields than any payload may have.
    options = ["-max_len=16384", "-rss_limit_mb=1024", "-timeout=10", f"-artifact_prefix={BUILD}/"]
    given = sys.argv[1:]
    # The first folder is written to.
    folders = [] if any(not option.startswith("-") for option in given) else [FOUND, CORPUS]
    FOUND.mkdir(parents=True, exist_ok=True)
    atheris.Setup([sys.argv[0], *options, *given, *map(str, folders)], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
