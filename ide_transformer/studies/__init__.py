"""Studies of schemes and depth: each measures, tabulates and draws."""
