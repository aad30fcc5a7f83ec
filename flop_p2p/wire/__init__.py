"""The language of nodes: messages, sealed frames, chunks."""
