"""The pure core: values and arithmetic.

Nothing here waits, reads, logs, draws lots or knows the time.
"""
