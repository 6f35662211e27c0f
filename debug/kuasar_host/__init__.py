"""Library for hosts: boot microVMs and reach the agent in them."""
