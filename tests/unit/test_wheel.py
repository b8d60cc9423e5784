"""The wheel: what it carries is what a checkout has, and is found where it was installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.unit.test_render import script

_CHECKOUT = Path(__file__).parents[2]
_PROGRAM = """
import json, sys
import hpk.render
from tests.unit.test_render import script
json.dump([hpk.render.__file__, script("/home/alice/pods/1")], sys.stdout)
"""


def run(*argv: str, path: str, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        argv, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_installed_wheel_renders_as_the_checkout_does(tmp_path: Path) -> None:
    uv = str(Path(sys.executable).with_name("uv"))
    wheels, site = tmp_path / "wheels", tmp_path / "site packages"
    run(
        uv,
        "build",
        "--quiet",
        "--wheel",
        f"--out-dir={wheels}",
        str(_CHECKOUT),
        path="",
        cwd=tmp_path,
    )
    (wheel,) = wheels.glob("hpk-*.whl")
    python = f"--python={sys.executable}"
    run(
        *(uv, "pip", "install", "--quiet", "--no-deps", python, f"--target={site}", str(wheel)),
        path="",
        cwd=tmp_path,
    )
    path = os.pathsep.join((str(site), str(_CHECKOUT)))
    found = json.loads(run(sys.executable, "-c", _PROGRAM, path=path, cwd=tmp_path))
    assert found == [str(site / "hpk/render.py"), script("/home/alice/pods/1")]
