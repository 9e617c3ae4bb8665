"""Printing what was found: a page, Markdown, tables, figures."""
