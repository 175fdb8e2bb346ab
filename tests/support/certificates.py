"""A server's certificate and key in files, and the authority that devices trust for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme

__all__ = ["Certificates", "issue_certificates"]


@dataclass(frozen=True, slots=True)
class Certificates:
    certificate: Path
    key: Path
    roots: bytes


def issue_certificates(folder: Path, host: str = "localhost") -> Certificates:
    authority = trustme.CA()
    issued = authority.issue_cert(host)
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(folder / "certificate.pem"), append=True)
    return Certificates(folder / "certificate.pem", folder / "key.pem", authority.cert_pem.bytes())
