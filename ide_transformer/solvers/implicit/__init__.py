"""Implicit schemes, solved by Newton–Krylov."""
