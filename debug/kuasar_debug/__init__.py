"""Host side: boot a microVM with the agent in it, and look inside."""
