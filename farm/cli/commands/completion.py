"""`farm completion`: the completion of its commands and flags for a shell."""

from __future__ import annotations

import click

from farm.cli.outcome import DONE


@click.command("completion", short_help="Print what makes a shell complete commands and flags.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> int:
    """Print what makes a shell complete the commands and flags of farm, for this shell or for every one that starts.

    \b
    Examples:
      source <(farm completion bash)
      farm completion bash > /usr/share/bash-completion/completions/farm
      farm completion zsh > /usr/share/zsh/vendor-completions/_farm
      farm completion fish > ~/.config/fish/completions/farm.fish
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None  # click has all three
    root = context.find_root()
    click.echo(made(root.command, {}, "farm", "_FARM_COMPLETE").source())
    return DONE
