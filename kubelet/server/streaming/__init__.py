"""exec, attach and port-forward as clients speak them: SPDY/3.1 and WebSocket."""
