"""The vendors' wire formats, pure: what to send, and what an answer means. No I/O, no clock."""
