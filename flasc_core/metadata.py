"""Names in gRPC's metadata that both ends know."""

from __future__ import annotations

from typing import Final

__all__ = ["STATUS_DETAILS", "UPLOAD_OPEN"]

# In the trailers of a refusal: a google.rpc.Status, which `flasc_core.status` reads and writes.
STATUS_DETAILS: Final = "grpc-status-details-bin"
# In StreamUpdate's initial metadata, once the header is taken: only now is a chunk worth sending.
UPLOAD_OPEN: Final = ("flasc-upload", "open")
