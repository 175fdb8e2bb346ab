"""Sparse vectors as bytes: what proto/flasc/v1/sparse_update.proto describes, at numpy speed."""

from flasc_core.wire.encoding import Compression, Encoding, IndexEncoding, ValueEncoding
from flasc_core.wire.limits import DecodeLimits
from flasc_core.wire.plain import PLAIN
from flasc_core.wire.profiles import largest_written, profile_for, quantize
from flasc_core.wire.segments import Profile
from flasc_core.wire.update import Part, decode, decode_segments, encode

__all__ = [
    "PLAIN",
    "Compression",
    "DecodeLimits",
    "Encoding",
    "IndexEncoding",
    "Part",
    "Profile",
    "ValueEncoding",
    "decode",
    "decode_segments",
    "encode",
    "largest_written",
    "profile_for",
    "quantize",
]
