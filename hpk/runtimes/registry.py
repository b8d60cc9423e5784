"""The container runtimes by name."""

from __future__ import annotations

from hpk.runtimes.apptainer import Apptainer
from hpk.runtimes.base import Runtime
from hpk.runtimes.podman import Podman

RUNTIMES: dict[str, Runtime] = {"apptainer": Apptainer(), "podman": Podman()}
