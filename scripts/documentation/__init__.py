"""The documentation site: tutorials executed, tables generated, links checked."""
