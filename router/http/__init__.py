"""The app servers' HTTP port."""
