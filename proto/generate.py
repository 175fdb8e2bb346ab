"""Regenerates the protobuf stubs in flasc_core/pb from proto/; with --check, compares instead.

The compiler is the oldest supported one on purpose: code from grpcio-tools 1.71 (protobuf 5.29)
loads under protobuf 5, 6 and 7, while newer code refuses older runtimes. Run it with a Python that
has exactly that version: `make stubs` and `make check-stubs` set one up.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

COMPILER = "1.71.2"
SOURCE = Path(__file__).resolve().parent
TARGET = SOURCE.parent / "flasc_core" / "pb"
# protoc writes imports from the proto path; the stubs live inside flasc_core.pb.
IMPORT = re.compile(r"^from flasc\.(?:(internal)\.)?v1 import", re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="fail if the committed stubs are stale"
    )
    check = parser.parse_args().check
    if version("grpcio-tools") != COMPILER:
        print(f"needs grpcio-tools {COMPILER}, found {version('grpcio-tools')}", file=sys.stderr)
        return 2
    fresh = _generate()
    if check:
        return _report_differences(fresh)
    for path, text in fresh.items():
        target = TARGET / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    print(f"wrote {len(fresh)} files to {TARGET.name}/")
    return 0


def _generate() -> dict[Path, str]:
    from grpc_tools import protoc

    with tempfile.TemporaryDirectory() as folder:
        protos = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.proto"))
        include = files("grpc_tools") / "_proto"
        arguments = [f"-I{SOURCE}", f"-I{include}", f"--python_out={folder}", f"--pyi_out={folder}"]
        if protoc.main(["protoc", *arguments, *protos]) != 0:
            raise SystemExit("protoc failed; its messages are above")
        root = Path(folder) / "flasc"
        return {
            path.relative_to(root): IMPORT.sub(_package, path.read_text())
            for path in sorted(root.rglob("*.py*"))
        }


def _package(match: re.Match[str]) -> str:
    inner = "internal." if match.group(1) else ""
    return f"from flasc_core.pb.{inner}v1 import"


def _report_differences(fresh: dict[Path, str]) -> int:
    committed = {path.relative_to(TARGET) for path in TARGET.rglob("*_pb2.py*")}
    stale = sorted(
        str(path)
        for path in committed | fresh.keys()
        if path not in fresh or path not in committed or (TARGET / path).read_text() != fresh[path]
    )
    for path in stale:
        print(f"stale: flasc_core/pb/{path}; run `make stubs`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
