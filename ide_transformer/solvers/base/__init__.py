"""Parts of schemes: base classes, couplings, projection, evaluation counts."""
