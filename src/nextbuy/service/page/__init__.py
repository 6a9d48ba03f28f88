"""The page for people: rendered here, no script from elsewhere.

`page_routes` gives the routes with their rules; `Door` stands before the guard and turns the
session of a browser into a key.
"""
