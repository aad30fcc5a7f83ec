"""`python -m flop_p2p` is `flop-p2p`."""

from flop_p2p.cli import main

if __name__ == "__main__":
    main()
