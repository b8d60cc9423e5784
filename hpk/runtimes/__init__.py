"""One file per container runtime: ContainerPlan and node to argv. Spawns nothing."""
