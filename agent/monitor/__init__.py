"""What happens to packets, told live and with names to whoever listens."""
