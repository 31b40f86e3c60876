"""Runs side by side: what they logged, what their models do in depth, and a page of both."""

from .page import report_runs as report_runs
from .record import RunRecord as RunRecord, read_runs as read_runs
