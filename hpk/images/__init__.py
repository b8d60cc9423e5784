"""Container images: tag to digest, digest to one converted file that all nodes share."""
