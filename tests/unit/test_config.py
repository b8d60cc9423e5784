"""config.toml: layers, origins, and what is said of what is wrong."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from hpk.config.load import layers, load, load_config
from hpk.config.schema import Config
from hpk.config.show import settings
from hpk.model.errors import PermanentError
from hpk.model.plan import SbatchOption
from hpk.planning.job.site import SiteSettings, prefer_partition, site_settings
from hpk.planning.plan import plan_pod
from hpk.report.stand_ins import unknown_image
from hpk.statefs import HpkPaths
from tests.planning import MAIN


@pytest.fixture
def paths(tmp_path: Path) -> HpkPaths:
    return HpkPaths(home=tmp_path, cache=tmp_path)


def _site(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(text)
    return path


def test_without_files_there_are_defaults(paths: HpkPaths, tmp_path: Path) -> None:
    assert load_config(paths, site=tmp_path / "none") == Config()


def test_the_user_wins_key_by_key(paths: HpkPaths, tmp_path: Path) -> None:
    site = _site(tmp_path, '[control-plane]\naddress = "10.0.0.1"\norphan-timeout-s = 60\n')
    paths.config.write_text("[control-plane]\norphan-timeout-s = 90\n")
    config = load_config(paths, site=site).control_plane
    assert (config.address, config.orphan_timeout_s) == ("10.0.0.1", 90)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[control-plane]\nadress = '10.0.0.1'", "adress"),
        ("[control-plane]\naddress = 'login'", "address"),
        ("[control-plane]\nservice-cidr = '10.0.0.0/28'", "service-cidr"),
        ("[control-plane]\ncluster-name = 'a b'", "cluster-name"),
        ("[control-plane]\norphan-timeout-s = -1", "orphan-timeout-s"),
        ("[binaries]\nsources = ['pip']", "sources"),
        ("[binaries", "config.toml"),
    ],
)
def test_what_is_wrong_is_named(paths: HpkPaths, tmp_path: Path, text: str, named: str) -> None:
    paths.config.write_text(text)
    with pytest.raises(PermanentError, match=named):
        load_config(paths, site=tmp_path / "none")


def test_the_site_is_made_of_two_files_or_of_the_one_that_is_named(paths: HpkPaths) -> None:
    usual = [str(layer.path) for layer in layers(paths, {})]
    assert usual == [
        "/etc/hpk/config.toml",
        f"{sys.prefix}/etc/hpk/config.toml",
        str(paths.config),
    ]
    named = layers(paths, {"HPK_SITE_CONFIG": "/site/hpk.toml"})
    assert [str(layer.path) for layer in named] == ["/site/hpk.toml", str(paths.config)]


def test_a_named_file_must_be_there(paths: HpkPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPK_SITE_CONFIG", "/no/such.toml")
    with pytest.raises(PermanentError, match=r"/no/such\.toml.*HPK_SITE_CONFIG"):
        load_config(paths)


def test_each_value_knows_its_file(paths: HpkPaths, tmp_path: Path) -> None:
    site = _site(
        tmp_path,
        '[slurm]\naccount = "site"\nqos = "normal"\n'
        '[namespaces.climate]\naccount = "c1"\nqos = "high"\n[gpus]\n"example.com/g" = "gpu:a100"',
    )
    paths.config.write_text('[slurm]\naccount = "mine"\n[namespaces.climate]\naccount = "c2"\n')
    shown = {one.key: one for one in settings(load(paths, site=site))}
    assert (shown["slurm.account"].value, shown["slurm.account"].origin) == (
        "mine",
        str(paths.config),
    )
    assert (shown["slurm.qos"].value, shown["slurm.qos"].origin) == ("normal", str(site))
    assert shown["namespaces.climate.account"].origin == str(paths.config)
    assert shown["namespaces.climate.qos"].origin == str(site)
    assert shown["gpus.example.com/g"].value == "gpu:a100"
    assert (shown["pods.runtime"].value, shown["pods.runtime"].origin) == ("apptainer", "default")


def test_a_proxys_password_is_not_shown(paths: HpkPaths, tmp_path: Path) -> None:
    paths.config.write_text('[binaries]\nproxy = "http://me:secret@proxy:3128"\n')
    shown = {one.key: one.value for one in settings(load(paths, site=tmp_path / "none"))}
    assert shown["binaries.proxy"] == "http://***@proxy:3128"


def test_all_that_is_wrong_is_said_with_its_file(paths: HpkPaths, tmp_path: Path) -> None:
    site = _site(tmp_path, '[slurm]\nacount = "x"\n')
    paths.config.write_text('[pods]\nruntime = "docker"\n')
    with pytest.raises(PermanentError) as error:
        load(paths, site=site)
    assert f"{site}: slurm.acount: there is no such setting" in error.value.message
    assert f"{paths.config}: pods.runtime: must be one of apptainer" in error.value.message
    assert error.value.remedy == "did you mean account?"


@pytest.mark.parametrize(
    "text",
    [
        "slurm = 1",
        "[slurm]\naccount = 1",
        "[slurm]\naccount = 'a b'",
        "[slurm]\naccount = 'a\\n#SBATCH --uid=0'",
        '[slurm]\naccount = "a\\n"',
        "[slurm]\ntime = 'tomorrow'",
        "[slurm]\nuse_partition_max_time = false",
        "[slurm]\nuse-partition-max-time = 'no'",
        "[namespaces.'A/b']\naccount = 'a'",
        "[namespaces.a]\npartition = 'main'",
        "[gpus]\n'nvidia.com/gpu' = 'gpu:a:b,license'",
        "[gpus]\ngpu = 'gpu'",
        "[pods]\ndefault-memory = '-1Gi'",
        "[control-plane]\norphan-timeout-s = '60'",
        "[other]\nx = 1",
    ],
)
def test_nothing_hostile_or_mistyped_passes(paths: HpkPaths, tmp_path: Path, text: str) -> None:
    paths.config.write_text(text)
    with pytest.raises(PermanentError) as error:
        load(paths, site=tmp_path / "none")
    assert str(paths.config) in error.value.message


def test_planning_gets_the_settings_with_their_origin(paths: HpkPaths, tmp_path: Path) -> None:
    paths.config.write_text(
        '[slurm]\naccount = "a"\ntime = "1:00:00"\n[namespaces.n]\naccount = "b"\n'
        '[pods]\ndefault-memory = "2Gi"\n[gpus]\n"nvidia.com/gpu" = "gpu:h200"\n'
    )
    site = site_settings(load(paths, site=tmp_path / "none"))
    assert site.options_for("other")["account"] == SbatchOption(
        "account", "a", f"slurm.account in {paths.config}"
    )
    special = site.options_for("n")
    assert (special["account"].value, special["time"].value) == ("b", "1:00:00")
    assert special["account"].origin == f"namespaces.n.account in {paths.config}"
    assert site.default_memory_bytes == 2 << 30
    assert site.gpus["nvidia.com/gpu"] == "gpu:h200"
    assert site.gpus["amd.com/gpu"] == "gpu"


def test_without_files_planning_gets_its_own_defaults(paths: HpkPaths, tmp_path: Path) -> None:
    site = site_settings(load(paths, site=tmp_path / "none"))
    assert dataclasses.replace(site, default_memory_origin="") == dataclasses.replace(
        SiteSettings(), default_memory_origin=""
    )


def _planned(site: SiteSettings, annotations: dict[str, str], **spec: object) -> dict[str, str]:
    """The sbatch options of a Pod of namespace ``n``, and where each comes from."""
    container = {"name": "a", "image": "i", "resources": spec.pop("resources", {})}
    pod = {
        "metadata": {"namespace": "n", "name": "p", "uid": "0f", "annotations": annotations},
        "spec": {"containers": [container], **spec},
    }
    plan = plan_pod(pod, images={"a": unknown_image({}, {"image": "i"})}, partition=MAIN, site=site)
    return {option.name: f"{option.value} {option.origin}" for option in plan.options}


def test_a_pod_gets_what_it_does_not_say_itself(paths: HpkPaths, tmp_path: Path) -> None:
    paths.config.write_text(
        '[slurm]\naccount = "a"\nqos = "q"\nconstraint = "ib"\ntime = "1:00:00"\n'
        '[namespaces.n]\nqos = "special"\n[gpus]\n"example.com/h" = "gpu:h200"\n'
    )
    site = site_settings(load(paths, site=tmp_path / "none"))
    flags = "slurm-job.hpk.io/flags"
    found = _planned(site, {flags: "--account=mine"})
    assert found["account"] == f"mine metadata.annotations[{flags}]"
    assert found["qos"] == f"special namespaces.n.qos in {paths.config}"
    assert found["constraint"] == f"ib slurm.constraint in {paths.config}"
    assert found["time"] == f"1:00:00 slurm.time in {paths.config}"
    assert _planned(site, {flags: "--time=5"})["time"].startswith("5 ")
    deadline = _planned(site, {}, activeDeadlineSeconds=60)["time"]
    assert deadline.endswith("spec.activeDeadlineSeconds")
    gpus = {"limits": {"example.com/h": 2}}
    assert _planned(site, {}, resources=gpus)["gres"].startswith("gpu:h200:2 ")
    spread = _planned(site, {flags: "--ntasks=2"}, resources=gpus)
    assert spread["gpus-per-task"].startswith("h200:2 ")


def test_a_configured_time_never_exceeds_the_partitions(paths: HpkPaths, tmp_path: Path) -> None:
    paths.config.write_text('[slurm]\ntime = "7-00:00:00"\n')
    site = site_settings(load(paths, site=tmp_path / "none"))
    assert _planned(site, {})["time"] == "1-00:00:00 MaxTime of partition main"


def test_the_default_partition_can_be_chosen() -> None:
    other = dataclasses.replace(MAIN, name="debug", is_default=False)
    chosen = prefer_partition((MAIN, other), "debug")
    assert [partition.is_default for partition in chosen] == [False, True]
    assert prefer_partition((MAIN, other), "gone") == (MAIN, other)


def test_etcds_directory_is_one_of_our_own(paths: HpkPaths, tmp_path: Path) -> None:
    """Whoever reads it by a hostPath reads the whole cluster."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    text = '[control-plane]\netcd-data = "{}"\n'
    paths.config.write_text(text.format(f"{tmp_path}/link/etcd"))
    site = site_settings(load(paths, site=tmp_path / "none"), ("/home/.hpk",))
    expected = {"/home/.hpk", f"{tmp_path}/link/etcd", f"{tmp_path}/disk/etcd"}
    assert set(site.own_directories) == expected
    for wrong in ("etcd", "/data/../etcd"):
        paths.config.write_text(text.format(wrong))
        with pytest.raises(PermanentError, match=r"etcd-data.*absolute path"):
            load(paths, site=tmp_path / "none")
