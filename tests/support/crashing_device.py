"""A device process that dies without a word at one named event; run as a script by crash tests.

python crashing_device.py ADDRESS STATE_FOLDER EVENT_TO_DIE_AT
"""

from __future__ import annotations

import os
import sys

from client_sdk import Event, Participant
from tests.support.scripted_service import CREDENTIAL, TASK
from tests.support.vector_trainer import VectorTrainer

EXIT_CODE = 77


def main(address: str, state_folder: str, last_event: str) -> None:
    def die(event: Event) -> None:
        if type(event).__name__ == last_event:
            os._exit(EXIT_CODE)

    with Participant(
        address,
        task=TASK,
        credential=CREDENTIAL,
        trainer=VectorTrainer(),
        state_folder=state_folder,
        insecure=True,
        on_event=die,
    ) as participant:
        participant.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
