"""What events between services cost, beside a raw client of the same broker."""
