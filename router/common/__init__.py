"""What the router and the workers share: messages, settings, logs, metrics, tokens. It imports nothing of either."""
