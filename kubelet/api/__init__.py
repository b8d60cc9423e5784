"""The API server as the kubelet sees it: raw JSON, one list and watch, its times."""
