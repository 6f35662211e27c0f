"""The messages and services of the host contract, generated from `proto/` by `make proto`."""
