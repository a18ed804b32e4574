"""The `splitformer` command, one module per subcommand; each is imported when it is called."""
