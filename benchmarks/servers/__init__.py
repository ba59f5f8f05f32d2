"""What is measured: one module for each server, with a class `Server` in it."""
