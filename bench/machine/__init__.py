"""What the machine says: processes, memory, CPU time, control groups. Linux only."""
