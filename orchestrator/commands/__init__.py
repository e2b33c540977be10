"""The commands' work, one file each; `cli` says how they are asked for."""
