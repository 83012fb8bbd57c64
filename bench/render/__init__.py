"""Draws the tables and charts of `bench.tables`: on the terminal, as Markdown, as pictures, as an HTML page."""
