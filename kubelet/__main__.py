"""``python -m kubelet``: started by the control plane, told where it lives by HPK_HOME."""

from __future__ import annotations

import asyncio
import logging
import sys

from hpk.model.errors import HpkError
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths, private_directory
from hpk.supervisor_zipapp import install_zipapp
from kubelet.apiserver import ApiServer
from kubelet.daemon import Kubelet, load_settings


async def _main() -> None:
    paths = HpkPaths.from_environment()
    settings = load_settings(paths)
    private_directory(paths.pods)
    kubelet = Kubelet(
        paths=paths,
        settings=settings,
        api=await ApiServer.connect(settings.kubeconfig),
        slurm=CliBackend(),
        zipapp=install_zipapp(paths),
    )
    await kubelet.run()


def main() -> int:
    """Run the kubelet; 1 with a line on standard error where it cannot start."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    try:
        asyncio.run(_main())
    except (HpkError, OSError) as error:
        logging.getLogger("kubelet").error("the kubelet cannot start: %s", error)  # noqa: TRY400
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
