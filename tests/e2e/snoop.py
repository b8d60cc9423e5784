"""What a user can see of another on a host: a program that the curious user runs there.

Standard library only; run as ``python3 -I -c TEXT`` with a request on its standard input, so that
what it looks for stands in no command line of its own. Its answer: ``found`` (a word, and where),
``open`` (what of the owner's processes and files it could read), ``sockets`` (Unix sockets of
either kind that take its connections).
"""

import json
import os
import socket
import stat
import sys
from collections.abc import Iterator

_PRIVATE = ("environ", "maps", "auxv", "stack", "syscall", "io")
_LINKS = ("exe", "cwd", "root")
_DIRECTORIES = ("fd", "fdinfo", "map_files", "ns")
_PUBLIC = ("cmdline", "status", "stat", "comm", "cgroup", "limits", "sched", "mountinfo")
_BLOCK = 1 << 20
_LISTENS = 0x10000


def main() -> None:
    """Look at everything and answer."""
    request = json.load(sys.stdin)
    look = Look(request["words"], request["owner"])
    look.at_processes()
    for root in request["roots"]:
        look.at_files(root)
    print(json.dumps({"found": look.found, "open": look.open, "sockets": list(unix_sockets())}))


class Look:
    """What was seen so far."""

    def __init__(self, words: dict[str, str], owner: int) -> None:
        self.words = {name: word.encode() for name, word in words.items()}
        self.owner = owner
        self.found: list[list[str]] = []
        self.open: list[str] = []

    def at_processes(self) -> None:
        """Every file of every process's directory; each task has the same."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            is_owners = self._is_owners(pid)
            for name in (*_PUBLIC, *_PRIVATE):
                path = f"/proc/{pid}/{name}"
                if self.search(path) and is_owners and name in _PRIVATE:
                    self.open.append(path)
            for name in _LINKS if is_owners else ():
                if resolves(f"/proc/{pid}/{name}"):
                    self.open.append(f"/proc/{pid}/{name}")
            for name in _DIRECTORIES if is_owners else ():
                self.open += [
                    f"/proc/{pid}/{name}/{entry}"
                    for entry in listed(f"/proc/{pid}/{name}")
                    if resolves(f"/proc/{pid}/{name}/{entry}")
                ]

    def at_files(self, root: str) -> None:
        """Every file below a directory, links not followed."""
        for directory, names, files in os.walk(root):
            info = os.lstat(directory)
            if info.st_uid == self.owner and directory != root and (names or files):
                self.open.append(directory)
            for name in files:
                path = os.path.join(directory, name)
                try:
                    info = os.lstat(path)
                except OSError:
                    continue
                if stat.S_ISREG(info.st_mode) and self.search(path) and info.st_uid == self.owner:
                    self.open.append(path)

    def search(self, path: str) -> bool:
        """Look for the words in a file; whether anything could be read from it."""
        tail, was_read = b"", False
        try:
            with open(path, "rb", buffering=0) as file:
                while block := file.read(_BLOCK):
                    was_read = True
                    text = tail + block
                    self.found += [[n, path] for n, word in self.words.items() if word in text]
                    tail = text[-256:]
        except OSError:
            pass
        return was_read

    def _is_owners(self, pid: str) -> bool:
        try:
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
                (line,) = (text for text in file if text.startswith("Uid:"))
        except (OSError, ValueError):
            return False
        return str(self.owner) in line.split()


def resolves(path: str) -> bool:
    """Whether a link of /proc says where it leads."""
    try:
        os.readlink(path)
    except OSError:
        return False
    return True


def listed(path: str) -> list[str]:
    """The names in a directory; none where it may not be read."""
    try:
        return os.listdir(path)
    except OSError:
        return []


def unix_sockets() -> Iterator[str]:
    """Names of Unix sockets, abstract ones with "@", that take a connection."""
    with open("/proc/net/unix", encoding="utf-8", errors="replace") as file:
        lines = [line.split(None, 7) for line in file][1:]
    for fields in lines:
        if len(fields) < 8 or not int(fields[3], 16) & _LISTENS:
            continue
        name = fields[7].rstrip("\n")
        kind = int(fields[4], 16)
        with socket.socket(socket.AF_UNIX, kind) as peer:
            peer.settimeout(5)
            try:
                peer.connect("\0" + name[1:] if name.startswith("@") else name)
            except OSError:
                continue
            yield name


if __name__ == "__main__":
    main()
