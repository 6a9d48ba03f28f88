"""One model a file, all behind the protocol of models/protocol.py."""
