"""Adapter versions from the admin API to disk."""

from __future__ import annotations

import io
import zipfile
from hashlib import sha256
from pathlib import Path

from flasc_cli.api import AdminApi
from flasc_cli.errors import CliError, ExitCode

__all__ = ["TENSORS_FILE", "export_adapter"]

# As PEFT names it.
TENSORS_FILE = "adapter_model.safetensors"


def export_adapter(
    client: AdminApi,
    task: str,
    target: Path,
    *,
    version: str = "latest",
    weights: str = "masked",
    as_folder: bool = True,
) -> str:
    """Write a version as a PEFT folder or one safetensors file; return its tensors' SHA-256."""
    if as_folder and target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise CliError(f"{target} is not an empty folder; name another one", ExitCode.USAGE)
    name = "peft.zip" if as_folder else "adapter.safetensors"
    data = client.get_bytes(f"/v1/tasks/{task}/adapters/{version}/{name}", weights=weights)
    if as_folder:
        target.mkdir(parents=True, exist_ok=True)
        _unpack(data, target)
        data = (target / TENSORS_FILE).read_bytes()
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return sha256(data).hexdigest()


def _unpack(data: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            # The service writes flat archives; anything else would leave the folder.
            if Path(name).name != name:
                raise CliError(f"the archive holds {name!r}; is this the right service?")
            (folder / name).write_bytes(archive.read(name))
