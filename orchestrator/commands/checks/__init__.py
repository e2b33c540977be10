"""What `orchestrator check` looks at, a file for each thing that may be wrong."""
