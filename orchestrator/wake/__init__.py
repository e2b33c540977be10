"""Hints that there may be work. A hint has no meaning: the scheduler always asks the store."""
