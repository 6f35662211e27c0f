"""Debug server: shells on vsock port 1025, one for each connection.

`first_line` reads the line that selects a mode, `terminal` is a program on a pseudo-terminal,
`shell` runs one for a peer, `session` adds the second connection of `kuasar-debug shell`, and
`server` accepts connections and puts these together. A new mode is a class in `first_line` and a
case in `server`.
"""
