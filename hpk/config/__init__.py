"""``config.toml``: what a site and a user may set. The only part that reads these files."""
