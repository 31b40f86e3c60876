"""Schemes whose steps can be undone."""

from .algebraically_reversible import AlgebraicallyReversible as AlgebraicallyReversible
