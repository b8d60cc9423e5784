"""The way to the control plane: the channel to the kubelet, the pipe to the API server."""
