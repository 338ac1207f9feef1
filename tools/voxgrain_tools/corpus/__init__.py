"""Texts and the teachers who speak them."""
