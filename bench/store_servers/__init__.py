"""The stores that a farm can be measured with, and their servers, which the bench starts for a run.

choices.py  what `--store` may be: the settings of the farm, the servers that are started, what a 2xx means then
servers.py  starts them on loopback, and stops them
running.py  what they say of what they hold
resp.py     what is asked of Redis and Valkey
"""
