"""What a daemon shows of itself to the machines that watch it; the work does not depend on it."""
