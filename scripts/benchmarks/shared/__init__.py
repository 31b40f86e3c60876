"""Parts of several benchmarks."""
