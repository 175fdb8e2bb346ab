"""Sparse vectors as bytes: what proto/flasc/v1/sparse_update.proto describes, at numpy speed."""

from flasc_core.wire.limits import DecodeLimits
from flasc_core.wire.plain import PLAIN
from flasc_core.wire.segments import Profile
from flasc_core.wire.update import decode, encode

__all__ = ["PLAIN", "DecodeLimits", "Profile", "decode", "encode"]
