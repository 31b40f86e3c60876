"""Commands for what is in contrib."""
