"""Pre-training of CT diffusion backbones, and the benchmarks of the papers."""
