"""Outlines of annotation tools, and masks drawn from them."""
