"""Looking at the agent from inside: metrics, leaks, dumps, stalls, traces.

Nothing here is imported before the agent serves, and most of it only when somebody asks.
"""
