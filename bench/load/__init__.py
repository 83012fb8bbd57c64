"""What load processes run: devices and app servers on plain epoll loops, and the bytes they speak."""
