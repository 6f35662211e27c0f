"""The command `kuasar-debug`: boot microVMs and inspect them."""
