"""Connections to supervisors: sessions, and the bundles that go down them."""
