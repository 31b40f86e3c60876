"""Controls: the weights as functions of depth."""
