"""`python -m splitformer_client` is the `splitformer` command."""

from splitformer_client.main import main

main()
