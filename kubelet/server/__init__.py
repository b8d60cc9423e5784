"""The kubelet API: one file per endpoint, behind one TLS front door."""
