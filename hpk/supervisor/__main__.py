"""``python -m hpk.supervisor``: the zipapp's start, for tests and by hand."""

from hpk.supervisor.main import entry

entry()
