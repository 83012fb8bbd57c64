"""Draws the tables and charts of `bench.figures.tables`: on the terminal, as Markdown, as pictures, as an HTML page."""
