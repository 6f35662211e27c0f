"""The commands of `kuasar-debug`, by what they are about."""
