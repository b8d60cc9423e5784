"""Pods whose arguments, variables and directory are as nasty as can be, and how they arrive."""

from __future__ import annotations

from tests.e2e.canary import CANARY
from tests.e2e.cluster import Cluster, Json, pod

NASTY = (
    "",
    " ",
    "a b",
    "'",
    '"',
    "\\",
    "\\n",
    f"$(touch {CANARY})",
    f"`touch {CANARY}`",
    f"; touch {CANARY} #",
    f"'; touch {CANARY}; '",
    f'"; touch {CANARY}; "',
    f"\n#SBATCH --wrap='touch {CANARY}'\n",
    f"\r\n#SBATCH --output={CANARY}\r\n",
    "*",
    "~",
    "%j %x",
    "{{ canary }} {% raw %}",
    "a,b=c:d|e",
    "-rf",
    "--",
    "é",
    "漢字",
    "\u202egnp.exe",
    "\U0001f600",
    "\x01\x02\x07\x1b[31m\x7f",
    "\u0085\u2028\u2029",
    "\t\v\f",
)
TELL = "cat /proc/$$$$/cmdline; printf '\\n--\\n'; cat /proc/$$$$/environ; printf '\\n--\\n'; pwd"
"""Prints argv, environment and directory as execve(2) got them. `$$$$` is a Pod's way to `$$`."""
NASTY_DIR = f"/é $(touch {CANARY}) `touch {CANARY}` ';\\ \t\""
NASTY_ENV = {f"N{index}": text for index, text in enumerate(NASTY)} | {
    "odd name; touch canary": "x",
    "$(touch canary)": "y",
    "a.b-c": "z",
    "LD_PRELOAD": "/home/alice/canary.so",
    "APPTAINERENV_CANARY": "1",
    "SBATCH_WRAP": "canary",
    "BASH_ENV": CANARY,
    "ENV": "",
}


def nasty_pod(name: str, image: str, annotations: Json) -> Json:
    """A Pod that tells what of all this it got."""
    container: Json = {
        "args": list(NASTY),
        "env": [{"name": key, "value": value} for key, value in NASTY_ENV.items()],
        "workingDir": NASTY_DIR,
    }
    return pod(name, "sh", "-c", TELL, image=image, annotations=annotations, container=container)


def assert_arrived(cluster: Cluster, found: Json, *, foreign: tuple[str, ...]) -> None:
    """Check that a nasty Pod, which has ended, got every byte.

    :param foreign: how variables begin that it must not have got besides.
    """
    assert found["status"]["phase"] == "Succeeded", found["status"]
    told = cluster.log_bytes(found["metadata"]["name"])
    argv, environ, directory = told.split(b"\n--\n")
    words = ["sh", "-c", TELL.replace("$$", "$"), *NASTY]
    assert argv == b"".join(word.encode() + b"\0" for word in words)
    variables = dict(line.split(b"=", 1) for line in environ.rstrip(b"\0").split(b"\0"))
    for key, value in NASTY_ENV.items():
        assert variables[key.encode()] == value.encode()
    assert directory == NASTY_DIR.encode() + b"\n"
    assert not [key for key in variables if key.decode().startswith(foreign)]
