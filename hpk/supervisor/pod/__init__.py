"""The life of all containers together, and what is said of it."""
