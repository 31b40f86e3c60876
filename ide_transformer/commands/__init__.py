"""The command `ide-transformer`, a module for each of its words; `scripts/` calls the same."""

from .command import (
    keep_freed_memory as keep_freed_memory,
    main as main,
    run_script as run_script,
    start as start,
)
