"""A page for print: how wide pictures may be, and the files that they become. Options know it without loading matplotlib."""

FORMATS = ("png", "pdf", "svg")
WIDTH, NARROWEST, WIDEST = 180.0, 85.0, 420.0  # mm: a page's full width, a column, A3
TALLEST = 240.0  # mm: a page with room for its caption
