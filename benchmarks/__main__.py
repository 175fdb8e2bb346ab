"""Run every benchmark, one after another; arguments go to each, which ignore what is not theirs.

Fuzzing is left out, where its engine is not installed.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> int:
    here = Path(__file__).parent
    names = sorted(path.stem for path in here.glob("*.py") if not path.stem.startswith("_"))
    if find_spec("atheris") is None:
        names.remove("fuzzed_inputs")
        print("fuzzed_inputs is left out: pip install 'flasc-service[fuzz]'")
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *sys.argv[1:]]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
