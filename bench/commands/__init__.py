"""The subcommands of `farm bench`: one module each, options and exit code; what they do stands in `bench`."""
