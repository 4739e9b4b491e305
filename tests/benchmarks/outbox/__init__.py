"""What durable events cost, beside the same work without them."""
