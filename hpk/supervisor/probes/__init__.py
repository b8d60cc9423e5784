"""Probes and hooks: asking a container something, or telling it to do something."""
