"""What runs in the job: owns the pod's containers, whatever becomes of the control plane."""
