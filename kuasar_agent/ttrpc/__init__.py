"""ttrpc for Python on gevent: a sans-IO core with a thin server and client around it."""
