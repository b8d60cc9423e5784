"""The hpk command: click functions that hold no logic."""

import sys

# Here, for nothing but this module is loaded before what an older Python cannot even read.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        "hpk: this is Python %d.%d, and hpk needs 3.11 or newer\n"  # noqa: UP031
        "  try: install it with another one: python3.11 -m venv …" % sys.version_info[:2]
    )
