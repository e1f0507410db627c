"""All I/O with Exa: connections, requests, retries and the rate limit."""
