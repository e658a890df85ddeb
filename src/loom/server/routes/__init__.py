"""The operations: one table, and a module for each group of them."""
