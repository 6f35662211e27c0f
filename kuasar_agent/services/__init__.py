"""The ttrpc services: decode, call the domain, encode."""
