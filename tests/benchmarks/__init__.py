"""What events cost, as ratios to the least that is possible and to other libraries."""
