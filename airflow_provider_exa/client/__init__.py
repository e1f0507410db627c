"""How Exa is reached: connections, requests, retries and the rate limit."""
