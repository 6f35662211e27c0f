"""Metrics, leak reports, dumps, stalls and traces of the agent.

No module of this package is imported before the agent listens; metrics, dumps and traces are
imported with the first request for them.
"""
