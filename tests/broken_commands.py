"""Runs command lines of hpk, each in a child of this process, which has imported all of it.

A hundred of them so take the time of a few. Reads a JSON list of command lines on standard input,
and writes a list of [exit code, standard output, standard error]. Output goes through pipes, for
in these environments there may be no disk to write it to.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import selectors
import sys

from hpk.cli import main as hpk


def _become(words: list[str], out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.setsid()
    sys.argv = ["hpk", *words]
    code = 0
    try:
        hpk.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            sys.stderr.write(end.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stderr.flush()
    os._exit(code)


def run(words: list[str]) -> tuple[int, str, str]:
    """One command, to its end."""
    pipes = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(words, pipes[0][1], pipes[1][1])
    said = {reader: b"" for reader, _ in pipes}
    with selectors.DefaultSelector() as selector:
        for reader, writer in pipes:
            os.close(writer)
            selector.register(reader, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                piece = os.read(key.fd, 1 << 16)
                said[key.fd] += piece
                if not piece:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    out, err = (said[reader].decode(errors="replace") for reader, _ in pipes)
    return code, out, err


def main() -> None:
    """All command lines, in their order."""
    command_lines = json.load(sys.stdin)
    for module in hpk._COMMANDS.values():
        # What cannot be imported here is tried again by the command itself, and its to tell.
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    json.dump([run(words) for words in command_lines], sys.stdout)


if __name__ == "__main__":
    main()
