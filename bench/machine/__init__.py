"""What the machine reports: processes, memory, CPU time, control groups. Linux only."""
