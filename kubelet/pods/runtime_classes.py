"""RuntimeClass: a container runtime by the name that the cluster gives it.

Its handler is one of HPK's runtimes; the Pod's own annotation comes before it. Sources:
pkg/kubelet/runtimeclass, pkg/kubelet/kuberuntime/kuberuntime_sandbox.go.
"""

from __future__ import annotations

from dataclasses import replace

from hpk.model.errors import AdmissionError, TransientError
from hpk.planning.job.site import SiteSettings
from kubelet.api.apiserver import ApiError, ApiServer, Json, path

NO_SANDBOX = "FailedCreatePodSandBox"
_FIELD = "spec.runtimeClassName"


class RuntimeClasses:
    """Those of the API server."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api

    async def site_of(self, pod: Json, site: SiteSettings) -> SiteSettings:
        """The site as the Pod sees it: its RuntimeClass's runtime is the default.

        :raises AdmissionError: there is no such class, or nothing here that it stands for.
        :raises TransientError: the API server does not say.
        """
        name = str(pod["spec"].get("runtimeClassName") or "")
        if not name:
            return site
        try:
            found = await self._api.get(path("apis", "node.k8s.io", "v1", "runtimeclasses", name))
        except ApiError as error:
            if error.is_not_found:
                why = f'runtimeclass.node.k8s.io "{name}" not found'
                raise AdmissionError(NO_SANDBOX, _FIELD, why) from error
            raise TransientError(f"RuntimeClass {name}: {error}") from error
        handler = str(found.get("handler") or "")
        if handler not in site.runtimes:
            raise AdmissionError(
                NO_SANDBOX,
                _FIELD,
                f'no runtime for "{handler}" is configured',
                remedy=f"the handlers are {', '.join(site.runtimes)}",
            )
        return replace(site, default_runtime=handler)
