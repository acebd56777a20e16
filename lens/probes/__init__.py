"""Probes: what reads the radiomic features from an embedding.

- `probe` is the protocol; `ridge` and `kernel_ridge` implement it. Both solve in `spectral`, with
  penalties from `gcv`. A new probe is one file here, a line in `lens.verdicts.held_out.PROBES` and
  a line in `tests.probes.test_probe.CASES`.
- The shared MLP of the paper: `mlp` is the model, `training` its training loop and `devices` the
  sharing out of work; `sweep` searches the penalties over the whole grid, `halving` over a part.
- `decoder` solves the linear decoder on the frozen first layer by `least_squares`, `refit` under
  many vectors of weights.
- `scaling` and `checks` serve all of them.
"""
