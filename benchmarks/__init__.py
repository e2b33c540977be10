"""Speed and memory, measured side by side in one run and printed as ratios; nothing is asserted.

Rule 1: the daemon is the real one, a process of its own, on a database that survives power cuts.
Rule 2: what it is compared with makes the same calls to the same simulated vendor in the same run.
Rule 3: what depends on the machine is printed beside the ratio, never instead of it.
"""
