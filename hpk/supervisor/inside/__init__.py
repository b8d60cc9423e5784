"""What a container sees of the node: mounts, volumes, users and names, and where these lie."""
