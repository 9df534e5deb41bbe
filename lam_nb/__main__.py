"""python -m lam_nb: the command of nbs/38_command.ipynb (written by hand; the other modules are exported)."""

from lam_nb.command import command

command()
