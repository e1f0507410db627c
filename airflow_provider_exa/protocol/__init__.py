"""What Exa says and what it means, without I/O."""
