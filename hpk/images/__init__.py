"""Images: reference → digest → one converted image per digest, shared by every node."""
