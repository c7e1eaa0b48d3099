"""Device meshes, several processes, compiled programs and their cost."""
