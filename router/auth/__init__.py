"""Authorisation by the application's main server: what it is asked, what its answers mean, and what waits for them."""
