"""How a node is spoken to: the local control socket's protocol, and the controller channel's messages and session."""
