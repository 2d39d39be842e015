"""Evaluation: metrics, baselines, ceilings, intervals and the report."""
