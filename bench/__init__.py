"""Load generators and reports. They talk to a farm over the wire only, as devices and app servers do."""
