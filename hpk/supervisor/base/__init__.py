"""Words and system calls that all rooms of the supervisor use: files, descriptors, the loop."""
