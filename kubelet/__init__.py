"""The kubelet: a daemon that turns Pods into Slurm jobs and jobs into Pod status."""
