"""Which host of a cluster has which router: what each host decides by itself, and the records in Redis."""
