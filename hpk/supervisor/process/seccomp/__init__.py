"""Filters of system calls (seccomp(2)): what a program asks of the kernel and does not get."""
