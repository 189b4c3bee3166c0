"""A diffusion model of good images, whose samples can be made to deviate by a set strength."""
