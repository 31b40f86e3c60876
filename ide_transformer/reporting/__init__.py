"""Tables and reports; it knows nothing of the rest of the package."""

from .tables import (
    Report as Report,
    Terminal as Terminal,
    markdown_table as markdown_table,
    show_table as show_table,
    write_json as write_json,
    write_report as write_report,
)
