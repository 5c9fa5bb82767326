"""Evaluation, offline and online: statistics and policies as pure, seeded functions over data."""
