"""Runs side by side: what they logged, what their models do in depth, and a page of both."""

from .page import report_runs as report_runs
