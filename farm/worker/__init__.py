"""A worker: one shard. It holds device sockets and knows its own connections, and nothing else."""
