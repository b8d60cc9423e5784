"""PodPlan: the immutable translation of a Pod.

Built by hpk.planning, read by hpk.render (the sbatch script) and, as ``pod.json``, by the
supervisor in the job. It holds no Secret's and no token's value: those come in the bundle
(hpk.model.bundle) when the job starts. Whoever needs a part of it imports it from here.
"""

from hpk.model.plan.container import ContainerPlan, ImageConfig, ImagePlan, MpiPlan
from hpk.model.plan.environment import DEFAULT_PATH, EnvKind, EnvSource, EnvVar
from hpk.model.plan.job_spec import JobSpec, SupervisorSettings
from hpk.model.plan.pod import HostAlias, PodPlan, RestartPolicy, SbatchOption
from hpk.model.plan.volumes import (
    ConfigMapSource,
    DownwardItem,
    EmptyDirVolume,
    HostPathVolume,
    KeyToPath,
    PodCertificateSource,
    ProjectedVolume,
    SecretSource,
    TokenSource,
    TrustBundleSource,
    VolumeMount,
)

__all__ = [
    "DEFAULT_PATH",
    "ConfigMapSource",
    "ContainerPlan",
    "DownwardItem",
    "EmptyDirVolume",
    "EnvKind",
    "EnvSource",
    "EnvVar",
    "HostAlias",
    "HostPathVolume",
    "ImageConfig",
    "ImagePlan",
    "JobSpec",
    "KeyToPath",
    "MpiPlan",
    "PodCertificateSource",
    "PodPlan",
    "ProjectedVolume",
    "RestartPolicy",
    "SbatchOption",
    "SecretSource",
    "SupervisorSettings",
    "TokenSource",
    "TrustBundleSource",
    "VolumeMount",
]
