"""The token integral of attention as a quadrature."""
