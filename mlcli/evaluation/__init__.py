"""Evaluation of models: offline on data at hand, and the statistics that tell what a number is worth."""
