"""The console of the scripts."""

from rich.console import Console


class Terminal(Console):
    """Console of the scripts. The cursor stays visible beside a bar, so that a process
    that a signal ends leaves the terminal as it was."""

    def __init__(self) -> None:
        super().__init__(highlight=False, soft_wrap=True)

    def show_cursor(self, show: bool = True) -> bool:
        return super().show_cursor(True)
