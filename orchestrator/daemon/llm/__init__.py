"""The LLM gateway: the vendors ask it for what agents say, and each request is proof of life."""
