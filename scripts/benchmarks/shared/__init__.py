"""Parts of several benchmarks: commands, the problem over depth, reports."""
