"""Fixtures that several modules of these tests share."""

from tests.supervisor_bench import bench, zipapp

__all__ = ["bench", "zipapp"]
