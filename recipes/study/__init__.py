"""Blind studies of preference: pairs of clips on one page for people to rate, and what their votes come to."""
