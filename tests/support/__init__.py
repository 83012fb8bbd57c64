"""What tests share: farms, clients, servers and places that are not themselves tests."""
