"""Rollouts: models compared under live traffic. Statistics, policies and verdicts; pure and seeded but for `observe` and `controller`."""
