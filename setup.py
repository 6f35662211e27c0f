"""The packages: setup.cfg, where all else is declared, can find them below one directory only."""

from setuptools import find_packages, setup

agent = find_packages(include=["kuasar_agent", "kuasar_agent.*"])
host = find_packages("debug")
setup(
    packages=agent + host,
    package_dir={name: f"debug/{name}" for name in host if "." not in name},
)
