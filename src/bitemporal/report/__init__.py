"""One HTML file that says what a run found: verdict, tables, charts, pictures; it needs no network."""

from bitemporal.report.page import write_report

__all__ = ["write_report"]
