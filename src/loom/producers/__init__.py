"""What makes chunks."""
