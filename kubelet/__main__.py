"""``python -m kubelet``: started by the control plane, told where it lives by HPK_HOME."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path

from hpk.config.load import load
from hpk.durable import private_directory
from hpk.model import codec
from hpk.model.errors import HpkError
from hpk.model.settings import KubeletSettings
from hpk.planning.job.site import site_settings
from hpk.slurm.cli import CliBackend
from hpk.statefs import HpkPaths
from hpk.supervisor_zipapp import install_zipapp
from kubelet.api.apiserver import ApiServer
from kubelet.daemon import Kubelet
from kubelet.descriptors import raise_limit

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """Appends a record's own fields (``extra``) as ``name=value``."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """See logging.Formatter."""
        fields = {k: v for k, v in record.__dict__.items() if k not in _STANDARD}
        tail = "".join(f" {name}={value}" for name, value in sorted(fields.items()))
        return super().formatMessage(record) + tail


def _watch_children() -> None:
    """As later Pythons do: a descriptor waits for each sbatch to end, not a thread."""
    if sys.version_info >= (3, 12):
        return
    with contextlib.suppress(OSError):  # before Linux 5.3
        os.close(os.pidfd_open(os.getpid()))
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)


async def _main() -> None:
    _watch_children()
    paths = HpkPaths.from_environment()
    # As `hpk up` wrote them.
    settings = codec.loads(KubeletSettings, (paths.kubelet / "settings.json").read_bytes())
    site = site_settings(load(paths), paths.own_directories)
    private_directory(paths.pods)
    kubelet = Kubelet(
        paths=paths,
        settings=settings,
        api=await ApiServer.connect(Path(settings.kubeconfig)),
        slurm=CliBackend(interval_s=settings.poll_interval_s),
        zipapp=install_zipapp(paths),
        site=site,
    )
    await kubelet.run()


def main() -> int:
    """Run the kubelet; 1 with a line on standard error where it cannot start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FieldFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    raise_limit()
    try:
        asyncio.run(_main())
    except (HpkError, OSError) as error:
        logging.getLogger("kubelet").error("the kubelet cannot start: %s", error)  # noqa: TRY400
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
