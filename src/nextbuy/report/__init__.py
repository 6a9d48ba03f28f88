"""The report: one HTML file that opens anywhere, made from a bundle alone."""

from nextbuy.report.page import write_report

__all__ = ["write_report"]
