"""What each command shows: its document as tables and charts. Pure."""
