"""The commands of `kuasar-debug`, by subject."""
