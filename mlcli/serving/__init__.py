"""The gateway: HTTP before processes that predict. It never loads a model and needs no NumPy."""
