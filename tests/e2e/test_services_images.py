"""Images of the kind everybody runs: a web server that starts as root, a database that must not.

Both are unmodified as far as users go: nothing in them knows of HPK, and the Pods say no more than
they would elsewhere. Each Pod asks its own service from a second container.
"""

from __future__ import annotations

import pytest

from tests.e2e.cluster import BUSYBOX, NGINX, POSTGRES, RUNTIME, Cluster, Json, eventually

PORTS = {"apptainer": 15400, "podman": 15410}
"""The first of each runtime's: Pods share the network of their node."""
PAGE = "a page with 'quotes' and $variables\n"
SITE = """\
server {
    listen PORT;
    root /usr/share/nginx/html;
    location /whoami { return 200 "$hostname"; }
}
"""
ASK = """\
set -eu
ask() { psql -tA -v ON_ERROR_STOP=1 "$@"; }
until ask -h 127.0.0.1 -c 'select 1' > /dev/null 2>&1; do sleep 0.3; done
ask -h 127.0.0.1 -c 'create table if not exists seen (at serial, how text)'
ask -h 127.0.0.1 -c "insert into seen (how) values ('localhost')"
ask -h /var/run/postgresql -c "insert into seen (how) values ('socket')"
"""
IDS = "select substring(pg_read_file('/proc/self/status') from E'Uid:\\\\t([0-9]+)')"
RESTART = """
ask -h 127.0.0.1 -c "select pg_postmaster_start_time()" > /tmp/first
pg_ctl --mode=fast stop > /dev/null
until ask -h 127.0.0.1 -c 'select pg_postmaster_start_time()' > /tmp/second 2> /dev/null
do sleep 0.3; done
cmp -s /tmp/first /tmp/second && echo "not restarted"
"""
TELL = f"""
ask -h 127.0.0.1 -c 'select how from seen order by at'
ask -h 127.0.0.1 -c "{IDS}"
stat -c '%u %a' "$PGDATA"
touch /tmp/done
"""


@pytest.fixture(scope="module", params=["apptainer", "podman"])
def runtime(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def service(name: str, runtime: str, *containers: Json, **spec: object) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": {RUNTIME: runtime}},
        "spec": {
            "containers": list(containers),
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 10,
            **spec,
        },
    }


def database(name: str, runtime: str, port: int, then: str, **spec: object) -> Json:
    """A server, and a client that asks it and then sleeps."""
    env = [
        {"name": "POSTGRES_PASSWORD", "value": "pass 'word'"},
        {"name": "PGPASSWORD", "value": "pass 'word'"},
        {"name": "PGPORT", "value": str(port)},
        {"name": "PGUSER", "value": "postgres"},
        {"name": "PGDATA", "value": "/var/lib/postgresql/data/here"},
    ]
    mounts = [
        {"name": "data", "mountPath": "/var/lib/postgresql/data"},
        {"name": "run", "mountPath": "/var/run/postgresql"},
    ]
    both: Json = {"image": POSTGRES, "env": env, "volumeMounts": mounts}
    command = ["bash", "-c", f"{ASK}{then}{TELL}exec sleep infinity"]
    return service(
        name,
        runtime,
        {"name": "server", **both},
        {"name": "client", "command": command, **both},
        volumes=[{"name": "data", "emptyDir": {}}, {"name": "run", "emptyDir": {}}],
        **spec,
    )


@pytest.fixture(scope="module")
def started(shared: Cluster, runtime: str) -> Cluster:
    """All Pods of a runtime."""
    port = PORTS[runtime]
    shared.kubectl("delete", "configmap", f"{runtime}-site", "--ignore-not-found")
    get = f"wget -q -O - http://127.0.0.1:{port}/ 2> /dev/null"
    ask = f"until {get}; do sleep 0.3; done; exec sleep infinity"
    files = [
        {"name": "site", "mountPath": "/etc/nginx/conf.d", "readOnly": True},
        {"name": "page", "mountPath": "/usr/share/nginx/html"},
    ]
    volumes = [
        {
            "name": name,
            "configMap": {"name": f"{runtime}-site", "items": [{"key": key, "path": key}]},
        }
        for name, key in (("site", "default.conf"), ("page", "index.html"))
    ]
    own = {"runAsUser": 999, "runAsGroup": 999, "fsGroup": 999, "runAsNonRoot": True}
    shared.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{runtime}-site"},
            "data": {"default.conf": SITE.replace("PORT", str(port)), "index.html": PAGE},
        },
        service(
            f"{runtime}-web",
            runtime,
            {"name": "server", "image": NGINX, "volumeMounts": files},
            {"name": "client", "image": BUSYBOX, "command": ["sh", "-c", ask]},
            volumes=volumes,
        ),
        database(
            *(f"{runtime}-own", runtime, port + 1, RESTART),
            securityContext=own,
            shareProcessNamespace=True,  # pg_ctl stops the server by its pid
        ),
        database(f"{runtime}-root", runtime, port + 2, ""),
    )
    return shared


def said(cluster: Cluster, pod: str, *, lines: int) -> list[str]:
    """What the client said, once it is all there."""

    def look() -> list[str]:
        done = cluster.kubectl("logs", pod, "-c", "client", check=False)
        found = done.stdout.splitlines()
        return found if len(found) >= lines else []

    try:
        return eventually(look, timeout_s=180, what=f"the answers in {pod}")
    except BaseException:
        print(cluster.kubectl("logs", pod, "--all-containers", check=False).stdout)
        print(cluster.kubectl("describe", "pod", pod, check=False).stdout)
        raise


def status(cluster: Cluster, pod: str, name: str) -> Json:
    found = cluster.get("pod", pod)["status"]["containerStatuses"]
    return next(item for item in found if item["name"] == name)


def test_a_web_server_that_starts_as_root(started: Cluster, runtime: str) -> None:
    pod = f"{runtime}-web"
    assert said(started, pod, lines=1) == [PAGE.rstrip("\n")]
    log = started.kubectl("logs", pod, "-c", "server").stdout
    assert '"GET / HTTP/1.1" 200' in log
    assert "emerg" not in log
    assert log.count("start worker process ") == 2
    started.kubectl("delete", "pod", pod)


def test_a_database_as_its_own_user_survives_a_restart(started: Cluster, runtime: str) -> None:
    pod = f"{runtime}-own"
    answers = said(started, pod, lines=7)
    assert answers[:3] == ["CREATE TABLE", "INSERT 0 1", "INSERT 0 1"]
    assert answers[3:] == ["localhost", "socket", "999", "999 700"]
    assert status(started, pod, "server")["restartCount"] == 1
    log = started.kubectl("logs", pod, "-c", "server").stdout
    assert "Success. You can now start the database server" not in log
    started.kubectl("delete", "pod", pod)


def test_a_database_that_starts_as_root_becomes_its_user(started: Cluster, runtime: str) -> None:
    """The client is root and sees the files as root's: ids are shown to each as its own."""
    pod = f"{runtime}-root"
    answers = said(started, pod, lines=7)
    assert answers[3:] == ["localhost", "socket", "999", "0 700"]
    assert status(started, pod, "server")["restartCount"] == 0
    started.kubectl("delete", "pod", pod)
