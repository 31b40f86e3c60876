"""Studies of schemes, depth, resolutions and runs: each measures, tabulates and draws."""
