"""Builds the supervisor's zipapp, the one program a job runs. Outside the job; imports none of it.

The file's name is the SHA-256 of its content, so that a job that started before an upgrade keeps
the program it began with, and building twice gives the same file. It holds the sources, from which
any Python runs, and beside ``__main__.py`` its byte code for the interpreter that builds it, which
zipimport takes where the magic number fits. All the modules' byte code is a table in there: to
look for a hundred files and read each is a tenth of the supervisor's start, and what is imported
later must not wait for the shared file system.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import zipfile
from pathlib import Path

import hpk
from hpk.durable import private_directory, write_atomically
from hpk.statefs import HpkPaths

_PACKAGES = ("model", "mpi", "runtimes", "supervisor")
_MODULES = ("durable", "flock", "trees")
_MAIN = "import gc\n\ngc.disable()\n\nfrom hpk.supervisor.main import entry\n\nentry()\n"
_TABLE = '''import sys
from importlib.machinery import ModuleSpec
from marshal import loads


class Table:
    """Finds and loads the modules that TABLE has: name to (byte code, whether it is a package)."""

    def find_spec(name, path=None, target=None):
        found = TABLE.get(name)
        return found and ModuleSpec(name, Table, origin="zipapp", is_package=found[1])

    def create_module(spec):
        return None

    def exec_module(module):
        exec(loads(TABLE[module.__name__][0]), module.__dict__)

    def get_source(name):
        """For traces."""
        return __loader__.get_source(name)


sys.meta_path.insert(0, Table)
'''
_INIT = '"""HPK, the part that runs in a job."""\n'
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def build_zipapp() -> bytes:
    """The zipapp's bytes; the same for the same sources and the same Python."""
    root = Path(hpk.__file__).parent
    sources = {"hpk/__init__.py": _INIT}
    found = [root / f"{module}.py" for module in _MODULES]
    for package in _PACKAGES:
        found += sorted((root / package).rglob("*.py"))
    for path in found:
        sources[f"hpk/{path.relative_to(root).as_posix()}"] = path.read_text(encoding="utf-8")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        _add(archive, "__main__.pyc", _main_code(sources))
        for name, text in sorted(sources.items()):
            _add(archive, name, text.encode())
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _TIMESTAMP)
    entry.compress_type = zipfile.ZIP_STORED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)


def _main_code(sources: dict[str, str]) -> bytes:
    """``__main__`` with the table of all modules, as an unchecked hash-based .pyc, which carries no
    time. Source: PEP 552."""
    table = {}
    for name, text in sorted(sources.items()):
        parts = name.removesuffix(".py").split("/")
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        # Docstrings, which nobody reads in a job, are a tenth of it.
        code = compile(text, name, "exec", dont_inherit=True, optimize=2)
        table[module] = (marshal.dumps(code), is_package)
    text = f"TABLE = {table!r}\n{_TABLE}{_MAIN}"
    code = compile(text, "__main__.py", "exec", dont_inherit=True)
    source_hash = importlib.util.source_hash(text.encode())
    return (
        importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + source_hash + marshal.dumps(code)
    )


def install_zipapp(paths: HpkPaths) -> Path:
    """Put the zipapp where jobs find it, unless it is there; its path."""
    data = build_zipapp()
    digest = hashlib.sha256(data).hexdigest()
    target = private_directory(paths.artifacts) / f"supervisor-{digest}.pyz"
    try:
        if target.read_bytes() == data:
            return target
    except FileNotFoundError:
        pass
    write_atomically(target, data)
    return target
