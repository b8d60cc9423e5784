"""The lab's pure parts: hierarchies, accounts, configuration files, the plan of a root."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootstrap.lab import cgroups, definitions, etc, rootfs
from bootstrap.lab.layout import LOGIN, Lab
from hpk.model.errors import PermanentError

HYBRID = "".join(
    f"cgroup /sys/fs/cgroup/{name} cgroup rw,{name} 0 0\n"
    for name in ("cpu", *cgroups.V1_CONTROLLERS)
)
V2 = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0\n"


def test_hybrid_hierarchies() -> None:
    found = cgroups.parse_mounts(HYBRID + V2)
    assert not found.unified
    assert found.v2 == Path("/sys/fs/cgroup/unified")
    assert tuple(found.v1) == cgroups.V1_CONTROLLERS
    assert len(found.dirs(Lab(), "n1")) == 1 + len(cgroups.V1_CONTROLLERS)


def test_unified_hierarchy() -> None:
    found = cgroups.parse_mounts("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n")
    assert found.unified
    assert found.dirs(Lab(), "n1") == (Path("/sys/fs/cgroup/hpk-lab/n1/init"),)
    assert found.namespace_dirs(Lab(), "n1") == (Path("/sys/fs/cgroup/hpk-lab/n1"),)


@pytest.mark.parametrize(
    ("mounts", "offender"),
    [
        ("", "cgroup2"),
        ("cgroup /c/memory cgroup rw,memory 0 0\n" + V2, "freezer"),
        ("cgroup /c/all cgroup rw,memory,cpuset,freezer,devices,cpuacct 0 0\n" + V2, "memory"),
    ],
)
def test_hierarchies_we_cannot_use(mounts: str, offender: str) -> None:
    with pytest.raises(PermanentError, match=offender):
        cgroups.parse_mounts(mounts)


def test_accounts_leave_the_machines_people_out() -> None:
    machine = (
        "root:x:0:0:root:/somewhere:/bin/zsh\n"
        "daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n"
        "person:x:1000:1000::/home/person:/bin/bash\n"
        "slurm:x:64030:64030::/nonexistent:/usr/sbin/nologin\n"
        "a malformed line\n"
    )
    lines = etc.passwd_lines(machine)
    assert [line.split(":")[0] for line in lines][:3] == ["root", "daemon", "slurm"]
    assert "root:x:0:0:root:/root:/bin/bash" in lines
    assert any(line.startswith("alice:x:20001:20001:") for line in lines)
    assert not any(line.startswith("person:") for line in lines)


def test_groups_lose_the_machines_members() -> None:
    lines = etc.group_lines("sudo:x:27:person\nperson:x:1000:\nslurm:x:64030:\n")
    assert lines[:2] == ["sudo:x:27:", "slurm:x:64030:"]
    assert not any(line.startswith("person") for line in lines)


@pytest.mark.parametrize("unified", [True, False])
def test_cgroup_conf_follows_the_machine(unified: bool) -> None:
    text = etc.render("cgroup.conf", Lab(), unified=unified)
    assert ("CgroupPlugin=cgroup/v2" in text) is unified
    assert ("IgnoreSystemd=yes" in text) is unified
    assert ("CgroupMountpoint=/cg" in text) is not unified


def test_slurm_conf_names_all_nodes() -> None:
    text = etc.render("slurm.conf", Lab(nodes=7), unified=False)
    assert "NodeName=n[1-7] CPUs=4 RealMemory=8000 Gres=gpu:2" in text
    assert "StoreFlags" not in text, "job comments are not kept"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "lab",
        "hpk-lab-",
        "hpk-lab-A",
        "hpk-lab--a",
        "hpk-lab-a-b-c-d",
        "hpk-lab/../e",
        "hpk-lab\n",
    ],
)
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(PermanentError, match="name"):
        Lab(name=name)


@pytest.mark.parametrize("nodes", [0, -1, 33])
def test_sizes_that_are_none(nodes: int) -> None:
    with pytest.raises(PermanentError, match="nodes"):
        Lab(nodes=nodes)


def test_a_root_shows_only_what_it_is_given() -> None:
    lab = Lab()
    sources = rootfs.Sources(
        root_links={"bin": "usr/bin"},
        apptainer=Path("/cache/apptainer"),
        binaries=Path("/cache/binaries"),
        registry=Path("/cache/registry"),
        ids=dict.fromkeys(("munge", "slurm", "mysql", "docker-registry"), (1, 1)),
    )
    for host in lab.hosts:
        steps = rootfs.plan_root(lab, host, sources, cgroups.parse_mounts(HYBRID + V2))
        bound = {str(step[1]) for step in steps if step[0] == "mount" and step[4] == rootfs.MS_BIND}
        own = {str(lab.host_dir(host.name) / name) for name in ("tmp", "log")}
        shared = {"/usr", str(lab.etc), str(lab.home), str(lab.software)}
        given = {"/cache/apptainer", "/cache/binaries"}
        login = {"/cache/registry", str(lab.private / "registry")} if host.name == LOGIN else set()
        assert bound == own | shared | given | login


def test_definitions_are_whole_and_their_keys_differ() -> None:
    images = definitions.load_all()
    assert {image.name for image in images} >= {"busybox", "entrypoint", "lammps"}
    assert len({image.key for image in images}) == len(images)
    for image in images:
        sources = [file.source for file in image.content.files]
        sources += [program.source for program in image.content.programs]
        assert all((definitions.DIRECTORY / source).is_file() for source in sources)
