"""Declarations of users: producers by name, their inputs, options and context."""
