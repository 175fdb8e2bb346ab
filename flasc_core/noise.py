"""Gaussian noise for private sums, on the grid of the sums and a pure function of a secret seed.

A word of SHAKE-256 output is one coordinate: its top bit is the sign, the others are the upper tail
probability, whose quantile is Wichura's algorithm AS 241 (PPND16, Applied Statistics 37, 1988). The
logarithm in it is fdlibm's. Every operation is one that IEEE 754 rounds exactly, as in
`server_update`, so that a driver on another machine draws the same noise from the same seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import shake_256
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flasc_core.fold import GRID_BITS

__all__ = ["LARGEST_DEVIATE", "SEED_BYTES", "draw_noise"]

SEED_BYTES: Final = 32
# No coordinate is this many standard deviations from 0: a tail has 64 bits.
LARGEST_DEVIATE: Final = 9.3

# Small enough for all temporaries to stay in a core's cache.
_BLOCK: Final = 16_384
_DOMAIN: Final = b"flasc.noise.v1"
_MAGNITUDE: Final = np.uint64((1 << 63) - 1)
_HALF_CENTRE: Final = 0.425

_Vector = NDArray[np.float64]
# Numerator and denominator, highest power first.
_Ratio = tuple[Sequence[float], Sequence[float]]

_CENTRE: Final[_Ratio] = (
    (
        2.5090809287301226727e3,
        3.3430575583588128105e4,
        6.7265770927008700853e4,
        4.5921953931549871457e4,
        1.3731693765509461125e4,
        1.9715909503065514427e3,
        1.3314166789178437745e2,
        3.3871328727963666080e0,
    ),
    (
        5.2264952788528545610e3,
        2.8729085735721942674e4,
        3.9307895800092710610e4,
        2.1213794301586595867e4,
        5.3941960214247511077e3,
        6.8718700749205790830e2,
        4.2313330701600911252e1,
        1.0,
    ),
)
_NEAR_TAIL: Final[_Ratio] = (
    (
        7.74545014278341407640e-4,
        2.27238449892691845833e-2,
        2.41780725177450611770e-1,
        1.27045825245236838258e0,
        3.64784832476320460504e0,
        5.76949722146069140550e0,
        4.63033784615654529590e0,
        1.42343711074968357734e0,
    ),
    (
        1.05075007164441684324e-9,
        5.47593808499534494600e-4,
        1.51986665636164571966e-2,
        1.48103976427480074590e-1,
        6.89767334985100004550e-1,
        1.67638483018380384940e0,
        2.05319162663775882187e0,
        1.0,
    ),
)
_FAR_TAIL: Final[_Ratio] = (
    (
        2.01033439929228813265e-7,
        2.71155556874348757815e-5,
        1.24266094738807843860e-3,
        2.65321895265761230930e-2,
        2.96560571828504891230e-1,
        1.78482653991729133580e0,
        5.46378491116411436990e0,
        6.65790464350110377720e0,
    ),
    (
        2.04426310338993978564e-15,
        1.42151175831644588870e-7,
        1.84631831751005468180e-5,
        7.86869131145613259100e-4,
        1.48753612908506148525e-2,
        1.36929880922735805310e-1,
        5.99832206555887937690e-1,
        1.0,
    ),
)
_LN2_HIGH: Final = 6.93147180369123816490e-01
_LN2_LOW: Final = 1.90821492927058770002e-10
_LOG: Final = (
    1.479819860511658591e-01,
    1.531383769920937332e-01,
    1.818357216161805012e-01,
    2.222219843214978396e-01,
    2.857142874366239149e-01,
    3.999999999940941908e-01,
    6.666666666666735130e-01,
    0.0,
)


def draw_noise(seed: bytes, dim: int, deviation: float) -> NDArray[np.int64]:
    """Return independent N(0, deviation**2) rounded to grid steps, int64 of shape (dim,).

    Added to integer sums, the rounding is post-processing of a real Gaussian mechanism; that its
    deviates have 64 random bits each instead of infinitely many is not accounted for (Mironov 2012
    is about floats that are added, and has no hold on integers that are). ValueError for a seed of
    other than 32 bytes and for a deviation that could leave the grid.
    """
    scale = deviation * 2.0**GRID_BITS
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a noise seed has {SEED_BYTES} bytes, not {len(seed)}")
    # Written so that NaN is refused too.
    if not 0 < scale * LARGEST_DEVIATE < 2.0**63:
        raise ValueError(f"a standard deviation of {deviation} is outside the grid")
    steps = np.empty(dim, dtype=np.int64)
    for block, start in enumerate(range(0, dim, _BLOCK)):
        part = steps[start : start + _BLOCK]
        stream = shake_256(_DOMAIN + seed + block.to_bytes(8, "little"))
        words = np.frombuffer(stream.digest(8 * part.size), dtype="<u8")
        part[:] = np.rint(_normal(words) * scale).astype(np.int64)
    return steps


def _normal(words: NDArray[np.uint64]) -> _Vector:
    """Return the standard normal deviate of each uniform 64-bit word."""
    # In (0, 1/2]: the middle of the word's own interval, so that no tail is infinite.
    tail = ((words & _MAGNITUDE).astype(np.float64) + 0.5) * 2.0**-64
    from_centre = 0.5 - tail
    deviate = _ratio(_CENTRE, _HALF_CENTRE**2 - from_centre * from_centre)
    deviate *= from_centre
    outside = np.flatnonzero(from_centre > _HALF_CENTRE)
    depth = np.sqrt(-_log(tail[outside]))
    deviate[outside] = np.where(
        depth <= 5.0, _ratio(_NEAR_TAIL, depth - 1.6), _ratio(_FAR_TAIL, depth - 5.0)
    )
    return np.where(words > _MAGNITUDE, -deviate, deviate)


def _log(x: _Vector) -> _Vector:
    """Return the natural logarithm, to within 1 unit in the last place, of numbers in (0, 1)."""
    mantissa, exponent = np.frexp(x)
    low = mantissa < 0.70710678118654752440
    power = (exponent - low).astype(np.float64)
    beyond_one = np.where(low, 2.0 * mantissa, mantissa) - 1.0
    s = beyond_one / (2.0 + beyond_one)
    half_square = 0.5 * beyond_one * beyond_one
    rest = s * (half_square + _polynomial(_LOG, s * s)) + power * _LN2_LOW
    return power * _LN2_HIGH - ((half_square - rest) - beyond_one)


def _ratio(ratio: _Ratio, x: _Vector) -> _Vector:
    numerator, denominator = ratio
    return _polynomial(numerator, x) / _polynomial(denominator, x)


def _polynomial(coefficients: Sequence[float], x: _Vector) -> _Vector:
    value = coefficients[0] * x
    for coefficient in coefficients[1:-1]:
        value += coefficient
        value *= x
    value += coefficients[-1]
    return value
