"""Fixtures that several modules of these tests share."""

from tests.image_registry import registry
from tests.image_world import apptainer, world
from tests.kubelet_api import running
from tests.supervisor_bench import bench, zipapp

__all__ = ["apptainer", "bench", "registry", "running", "world", "zipapp"]
