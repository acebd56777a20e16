"""Studies on real images: what fine-tuning changed, by the jobs of the package, with controls."""
