"""Kubernetes quantities (``1500m``, ``2Gi``, ``1e3``), exactly and without floating point.

Grammar and capping: k8s.io/apimachinery/pkg/api/resource, quantity.go.
"""

from __future__ import annotations

import re
from fractions import Fraction

from hpk.model.errors import ParseError

MAX_QUANTITY = 2**63 - 1
_QUANTITY = re.compile(
    r"(?P<sign>[+-]?)(?P<number>[0-9]+\.?[0-9]*|\.[0-9]+)(?P<suffix>[A-Za-z]*)(?P<exponent>[+-]?[0-9]*)"
)
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_MAX_DIGITS = 64
_MAX_EXPONENT = 40  # beyond 10^40 every number with a digit is over MAX_QUANTITY


def parse_quantity(text: object) -> Fraction:
    """The number a quantity stands for, capped at 2^63-1.

    :raises ParseError: it is no quantity, or it is negative.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    found = _QUANTITY.fullmatch(text) if isinstance(text, str) and text.isascii() else None
    if found is None or len(found["number"]) > _MAX_DIGITS:
        raise ParseError(f"not a quantity: {text!r}")
    number = Fraction(found["number"].rstrip(".")) * _scale(found["suffix"], found["exponent"])
    if found["sign"] == "-" and number != 0:
        raise ParseError(f"a negative quantity: {text!r}")
    return min(number, Fraction(MAX_QUANTITY))


def _scale(suffix: str, exponent: str) -> Fraction:
    if exponent:
        if suffix not in ("e", "E") or not exponent.lstrip("+-"):
            raise ParseError(f"not a quantity's suffix: {suffix + exponent!r}")
        digits = exponent.lstrip("+-")
        power = int(digits) if len(digits) < len(str(_MAX_EXPONENT)) + 1 else _MAX_EXPONENT
        power = min(power, _MAX_EXPONENT)
        return Fraction(10) ** (-power if exponent.startswith("-") else power)
    if suffix in _BINARY:
        return Fraction(2 ** _BINARY[suffix])
    if suffix in _DECIMAL:
        return Fraction(10) ** _DECIMAL[suffix]
    raise ParseError(f"not a quantity's suffix: {suffix!r}")


def round_up(number: Fraction) -> int:
    """The least whole number that is not below."""
    return -(-number.numerator // number.denominator)
