"""What a container asks for besides its command: user, rights, probes, hooks."""
