"""The operations that a program consists of: one file each, found by pattern."""
