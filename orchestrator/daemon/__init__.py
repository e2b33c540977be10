"""What runs: everything here waits, and decides nothing that the core could decide."""
