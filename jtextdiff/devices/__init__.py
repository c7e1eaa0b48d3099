"""Device meshes, several processes, compiled programs and what they cost."""
