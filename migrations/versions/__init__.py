"""One file for each revision; revisions are numbers that only count up."""
