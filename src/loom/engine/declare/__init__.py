"""What users declare: producers by name, their inputs, options and context."""
