"""The report of a run: one HTML file with verdict, tables, charts and pictures that needs no network."""

from bitemporal.report.page import write_report

__all__ = ["write_report"]
