"""The pod's processes: who forks whom, in which namespaces, as which user, with which rights."""
