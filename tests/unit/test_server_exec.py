"""exec and attach over SPDY/3.1: real TLS, real programs, a client of the tests' own."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest

from kubelet.server.exec_signal import signal_of
from kubelet.server.streaming import command_spdy
from tests.kubelet_api import Running, get, raw
from tests.spdy_client import SpdyClient, upgrade_head, upgraded

V4 = "v4.channel.k8s.io"


def exec_path(*command: str, streams: str = "output=1&error=1", where: str = "web/main") -> str:
    words = "&".join(f"command={quote(word, safe='')}" for word in command)
    return f"/exec/default/{where}?{words}&{streams}"


async def open_streams(client: SpdyClient, *kinds: str) -> dict[str, int]:
    return {kind: await client.open(streamtype=kind) for kind in kinds}


async def read_status(client: SpdyClient, streams: dict[str, int]) -> dict[str, Any]:
    """The Status, once all streams that the server sends on have ended."""
    outputs = {number for kind, number in streams.items() if kind not in ("stdin", "resize")}
    await client.wait(lambda: outputs <= client.ended)
    return dict(json.loads(client.received[streams["error"]]))


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("where", ["web/main", "web/uid-of-web/main"])
async def test_a_program_s_outputs_come_apart_and_its_exit_code_as_a_status(
    running: Running, method: str, where: str
) -> None:
    running.allow_streams()
    path = exec_path("sh", "-c", "echo out; echo 'err \"$1\"' >&2; exit 17", where=where)
    async with upgraded(running, path, "v5.channel.k8s.io", V4, method=method) as client:
        assert b"\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n" in client.head
        streams = await open_streams(client, "error", "stdout", "stderr")
        status = await read_status(client, streams)
        assert client.received[streams["stdout"]] == b"out\n"
        assert client.received[streams["stderr"]] == b'err "$1"\n'
        assert (status["status"], status["reason"]) == ("Failure", "NonZeroExitCode")
        assert status["details"] == {"causes": [{"reason": "ExitCode", "message": "17"}]}
        await client.wait(lambda: client.goaway)
    assert running.streams.opened[0].is_closed.is_set()


async def test_success(running: Running) -> None:
    running.allow_streams()
    async with upgraded(running, exec_path("true"), V4) as client:
        streams = await open_streams(client, "error", "stdout", "stderr")
        assert (await read_status(client, streams))["status"] == "Success"


async def test_arguments_are_those_that_were_sent(running: Running) -> None:
    running.allow_streams()
    nasty = ["a b", "'\"`$(id)`", "line\nbreak", "", "-n", "ü…", "a&b=c;d+e%20f"]
    path = exec_path("printf", "<%s>", *nasty)
    async with upgraded(running, path, V4) as client:
        streams = await open_streams(client, "error", "stdout", "stderr")
        await read_status(client, streams)
        assert client.received[streams["stdout"]].decode() == "".join(f"<{w}>" for w in nasty)


async def test_input_ends_when_the_client_ends_it(running: Running) -> None:
    running.allow_streams()
    path = exec_path("cat", streams="input=1&output=1")
    async with upgraded(running, path, V4) as client:
        streams = await open_streams(client, "error", "stdin", "stdout")
        block = bytes(range(256)) * 128
        for _ in range(64):
            await client.write(streams["stdin"], block)
        await client.write(streams["stdin"], b"", fin=True)
        assert (await read_status(client, streams))["status"] == "Success"
        assert client.received[streams["stdout"]] == block * 64


async def test_a_program_that_does_not_read_its_input_ends_all_the_same(running: Running) -> None:
    running.allow_streams()
    path = exec_path("sh", "-c", "exec <&-; echo done", streams="input=1&output=1")
    async with upgraded(running, path, V4) as client:
        streams = await open_streams(client, "error", "stdin", "stdout")
        await client.wait(lambda: len(client.replies) == 3)
        for _ in range(64):
            await client.write(streams["stdin"], bytes(32 * 1024))
        assert (await read_status(client, streams))["status"] == "Success"
        await client.wait(lambda: client.goaway)


async def test_a_program_that_is_not_there(running: Running) -> None:
    running.allow_streams()
    async with upgraded(running, exec_path("no-such-program"), V4) as client:
        streams = await open_streams(client, "error", "stdout", "stderr")
        await client.wait(lambda: streams["error"] in client.ended)
        status = json.loads(client.received[streams["error"]])
    assert (status["status"], status["reason"], status["code"]) == ("Failure", "InternalError", 500)
    assert status["message"] == (
        "Internal error occurred: error executing command in container:"
        ' exec: "no-such-program": executable file not found in $PATH'
    )


async def test_the_supervisor_is_lost_meanwhile(running: Running) -> None:
    running.allow_streams()
    async with upgraded(running, exec_path("sleep", "600"), V4) as client:
        streams = await open_streams(client, "error", "stdout", "stderr")
        await client.wait(lambda: len(client.replies) == 3)
        while not running.streams.opened:
            await asyncio.sleep(0)
        running.streams.opened[0].lost.set()
        await client.wait(lambda: streams["error"] in client.ended)
        status = json.loads(client.received[streams["error"]])
        assert "the supervisor hung up" in status["message"]


async def test_a_terminal_and_its_sizes(running: Running) -> None:
    running.allow_streams()
    script = "trap 'stty size' WINCH; tty >/dev/null && echo ready; read line; stty size; exit 3"
    path = exec_path("sh", "-c", script, streams="input=1&output=1&error=1&tty=1")
    async with upgraded(running, path, V4) as client:
        streams = await open_streams(client, "error", "stdin", "stdout", "resize")
        out = client.received.setdefault(streams["stdout"], bytearray())
        await client.wait(lambda: b"ready" in out)
        await client.write(streams["resize"], b'{"Width":101,"He')
        await client.write(streams["resize"], b'ight":33}\n{"width":80,"height":25}')
        await client.wait(lambda: b"25 80" in out)
        await client.write(streams["stdin"], b"go\r")
        status = await read_status(client, streams)
        assert status["details"]["causes"][0]["message"] == "3"


@pytest.mark.parametrize(
    "sizes", [b"[" * 3000, b'{"Width":-1,"Height":2}', b'{"Width":"a"}', b"null", b'{"Width":1e9}']
)
async def test_sizes_that_are_none_do_no_harm(running: Running, sizes: bytes) -> None:
    running.allow_streams()
    path = exec_path("sh", "-c", "read line", streams="input=1&output=1&tty=1")
    async with upgraded(running, path, V4) as client:
        streams = await open_streams(client, "error", "stdin", "stdout", "resize")
        await client.write(streams["resize"], sizes)
        await client.write(streams["stdin"], b"go\r")
        assert (await read_status(client, streams))["status"] == "Success"


@pytest.mark.parametrize("protocol", ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"])
async def test_older_protocols_tell_failures_as_text(running: Running, protocol: str) -> None:
    running.allow_streams()
    for script, expected in (("exit 17", b"exit code 17"), ("true", b"")):
        path = exec_path("sh", "-c", script, streams="output=1")
        async with upgraded(running, path, protocol) as client:
            await open_streams(client, "error", "stdout")
            await client.wait(lambda client=client: client.ended == {1, 3})  # type: ignore[misc]
            assert bytes(client.received[1]).endswith(expected)
            assert bool(client.received[1]) == bool(expected)


async def test_attach_joins_the_program_and_tells_no_exit_code(running: Running) -> None:
    running.allow_streams()
    running.streams.program = ("sh", "-c", "read line; echo got $line; exit 3")
    path = "/attach/default/web/main?input=1&output=1&error=1"
    async with upgraded(running, path, V4) as client:
        streams = await open_streams(client, "error", "stdin", "stdout", "stderr")
        await client.write(streams["stdin"], b"this\n")
        assert (await read_status(client, streams))["status"] == "Success"
        assert client.received[streams["stdout"]] == b"got this\n"
    assert running.streams.calls[0][:3] == ("attach", "uid-of-web", "main")


async def test_a_client_that_hangs_up_ends_the_program(running: Running) -> None:
    running.allow_streams()
    async with upgraded(running, exec_path("sleep", "600"), V4) as client:
        await open_streams(client, "error", "stdout", "stderr")
        while not running.streams.opened:
            await asyncio.sleep(0)
    await running.streams.opened[0].is_closed.wait()


async def test_a_client_that_opens_no_streams_is_not_waited_for(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command_spdy, "STREAMS_TIMEOUT_S", 0.05)
    running.allow_streams()
    async with upgraded(running, exec_path("id"), V4) as client:
        await client.open(streamtype="error")
        await client.wait_over()
    assert running.streams.opened == []


@pytest.mark.parametrize("kinds", [("error", "error"), ("error", "other"), ("stdin",)])
async def test_streams_that_were_not_asked_for_are_refused(
    running: Running, kinds: tuple[str, ...]
) -> None:
    running.allow_streams()
    async with upgraded(running, exec_path("true", streams="output=1"), V4) as client:
        for kind in kinds:
            refused = await client.open(streamtype=kind)
        await client.wait(lambda: client.resets == {refused: 3})
        kinds_left = {"error", "stdout"} - set(kinds)
        for kind in sorted(kinds_left):
            await client.open(streamtype=kind)
        await client.wait(lambda: client.goaway)


async def test_what_comes_while_an_exec_is_authorized_waits(running: Running) -> None:
    running.allow_streams()
    running.backend.may_create.clear()
    context = running.context(running.clients.issue("api-server"))
    reader, writer = await asyncio.open_connection("localhost", running.settings.port, ssl=context)
    client = SpdyClient(reader, writer)
    writer.write(upgrade_head(exec_path("kill", "-15", "1"), V4))
    for kind in ("error", "stdout", "stderr"):
        writer.write(client.syn_stream({"streamtype": kind})[1])
        await get(running, "/healthz")  # by when this piece has arrived
    running.backend.may_create.set()
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    client.start()
    status = await read_status(client, {"error": 1, "stdout": 3, "stderr": 5})
    assert status["status"] == "Success"
    await client.stop()
    assert len([r for r in running.backend.reviews if r.verb == "create"]) == 1
    assert running.backend.signals == [("uid-of-web", "main", 15)]


async def test_an_exec_needs_the_right_to_the_node(running: Running) -> None:
    context = running.context(running.clients.issue("somebody"))
    head = upgrade_head(exec_path("kill", "-9", "1"), V4)
    answer = await raw(running, context, head)
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"Forbidden (user=somebody, verb=create, resource=nodes, subresource(s)=[proxy])" in (
        answer
    )
    running.backend.api_down = True
    context = running.context(running.clients.issue("somebody-else"))
    assert (await raw(running, context, head)).startswith(b"HTTP/1.1 500 ")
    assert running.backend.signals == [] and running.streams.calls == []


@pytest.mark.parametrize(
    ("path", "protocol", "status", "message"),
    [
        ("/exec/default/web/absent?command=id&output=1", V4, 500, 'container not found ("absent")'),
        ("/exec/default/web/other-uid/main?command=id&output=1", V4, 500, "container not found"),
        ("/exec/default/queued/main?command=id&output=1", V4, 500, 'container not found ("main")'),
        ("/exec/default/absent/main?command=id&output=1", V4, 404, "pod does not exist"),
        ("/attach/default/absent/main?output=1", V4, 404, "pod does not exist"),
        ("/portForward/default/absent", "portforward.k8s.io", 404, "pod does not exist"),
        ("/portForward/default/web/other-uid", "portforward.k8s.io", 404, "pod not found"),
        ("/exec/default/web/main?command=id", V4, 400, "you must specify at least 1 of stdin"),
        ("/exec/default/web/main?command=id&error=1&tty=1", V4, 400, "at least 1 of stdin"),
        ("/exec/default/web/main?command=id&output=true", V4, 400, "at least 1 of stdin"),
        ("/exec/default/web/main?output=1", V4, 400, "you must specify a command"),
        ("/exec/default/web/main?command=a%00b&output=1", V4, 400, "you must specify a command"),
        ("/exec/default/web/main?command=%ff&output=1", V4, 400, "malformed query"),
        ("/exec/default/web/main?command=id&output=1", "v9.channel.k8s.io", 403, "v9.channel"),
        ("/exec/default/web/main?command=id&output=1", "", 400, "no valid protocols"),
        ("/exec/default/web", V4, 404, "page not found"),
        ("/exec/default/web/a/b/c", V4, 404, "page not found"),
        ("/exec/default/../web/main", V4, 404, "page not found"),
        ("/exec/default/web%2F..%2Fqueued/main", V4, 404, "page not found"),
        ("/exec/default/%2e%2e/main", V4, 404, "page not found"),
        ("/exec/default/web/main%0d%0aX:y", V4, 404, "page not found"),
        ("/exec/default/WEB/main", V4, 404, "page not found"),
        ("//exec/default/web/main", V4, 404, "page not found"),
        ("/run/default/web/main", V4, 404, "page not found"),
    ],
)
async def test_what_is_refused_before_anything_begins(
    running: Running, path: str, protocol: str, status: int, message: str
) -> None:
    running.allow_streams()
    context = running.context(running.clients.issue("api-server"))
    answer = await raw(running, context, upgrade_head(path, protocol))
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert message.encode() in answer
    assert running.streams.calls == []


@pytest.mark.parametrize(
    "head",
    [
        b"POST PATH HTTP/1.1\r\nConnection: Upgrade\r\nContent-Length: 5\r\n\r\nhello",
        b"POST PATH HTTP/1.1\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST PATH HTTP/1.1\r\nConnection: Upgrade\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST PATH HTTP/1.1\r\nConnection: Upgrade\r\nX: a\r\n folded\r\n\r\n",
        b"POST PATH HTTP/1.1\r\nConnection: Upgrade\r\nX : a\r\n\r\n",
        b"POST PATH HTTP/1.1\r\nConnection: Upgrade\r\nX: a\x00b\r\n\r\n",
        b"POST PATH HTTP/1.1\r\nConnection: Upgrade\r\nX: a\rY: b\r\n\r\n",
        b"POST PATH HTTP/1.1\nConnection: Upgrade\n\n",
        b"POST  PATH HTTP/1.1\r\nConnection: Upgrade\r\n\r\n",
        b"POST http://x PATH HTTP/1.1\r\nConnection: Upgrade\r\n\r\n",
        b"POST PATH HTTP/1.0\r\nConnection: Upgrade\r\n\r\n",
        b"POST PATH HTTP/1.1\r\nConnection: Upgrade\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"POST PATH HTTP/1.1\r\nConnection: Upgrade\r\nX:" + b" " * 50_000 + b"\x01\r\n\r\n",
    ],
)
async def test_heads_that_two_readers_might_read_differently_are_refused(
    running: Running, head: bytes
) -> None:
    running.allow_streams()
    context = running.context(running.clients.issue("api-server"))
    path = exec_path("id").encode()
    answer = await raw(running, context, head.replace(b"PATH", path))
    assert answer[:11] in (b"HTTP/1.1 40", b"HTTP/1.1 43"), answer
    assert running.streams.calls == []


async def test_other_methods_are_refused(running: Running) -> None:
    running.backend.rights.add(("api-server", "delete", "proxy", "main"))
    context = running.context(running.clients.issue("api-server"))
    head = upgrade_head(exec_path("id"), V4, method="DELETE")
    assert (await raw(running, context, head)).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize("lost", [False, True])
async def test_an_exec_of_kill_signals_the_containers_main_process(
    running: Running, lost: bool
) -> None:
    running.allow_streams()
    running.backend.lost = lost
    path = exec_path("/var/run/argo/argoexec", "kill", "15", "1")
    async with upgraded(running, path, V4) as client:
        streams = await open_streams(client, "error", "stdout", "stderr")
        await client.wait(lambda: streams["error"] in client.ended)
        status = json.loads(client.received[streams["error"]])["status"]
        assert status == ("Failure" if lost else "Success")
    assert running.backend.signals == ([] if lost else [("uid-of-web", "main", 15)])


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("kill", "-²", "1"), None),
        (("kill", "-٩", "1"), None),
        (("/var/run/argo/argoexec", "kill", "15", "1"), 15),
        (("/bin/sh", "-c", "kill -9 1"), 9),
        (("sh", "-c", "kill -s TERM 1"), 15),
        (("kill", "-SIGUSR1", "1"), 10),
        (("/bin/kill", "1"), None),
        (("kill", "-9", "-1"), None),
        (("kill", "-9", "12"), None),
        (("kill", "-99", "1"), None),
        (("sh", "-c", "kill -9 1; reboot"), None),
        (("/var/run/argo/argoexec", "kill", "15", "2"), None),
        (("echo", "kill -9 1"), None),
    ],
)
def test_which_commands_are_a_signal(command: tuple[str, ...], expected: int | None) -> None:
    assert signal_of(command) == expected
