"""A container's environment and command line, now or when the job runs."""
