"""The `spiral` command: one file per subcommand, each with HELP, EXAMPLES, add_arguments and run."""
