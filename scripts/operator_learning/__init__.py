"""Operator learning here and by the Fourier neural operator of neuraloperator."""
