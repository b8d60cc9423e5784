"""What a kubelet of ten thousand pods must not run out of."""

from __future__ import annotations

import subprocess
import sys
from asyncio import sslproto

from kubelet.descriptors import Descriptors
from kubelet.link import tls_listener

_TOLD = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 2000))
from kubelet.descriptors import descriptors, raise_limit
raise_limit()
raise_limit()
told = descriptors()
print(told.limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1], 3 <= told.used < 64)
"""


def test_the_kubelet_takes_as_many_descriptors_as_it_may() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TOLD], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["2000", "2000", "True"]


def test_few_descriptors_left_are_told() -> None:
    assert Descriptors(used=100, limit=1024).problem == ""
    assert "950 of 1024" in Descriptors(used=950, limit=1024).problem


def test_a_connection_of_tls_keeps_no_more_than_one_record() -> None:
    assert tls_listener
    assert sslproto.SSLProtocol.max_size == 16 * 1024
