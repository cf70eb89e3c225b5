"""One file per verb: parse, call, present. Nothing heavy is imported before a verb runs."""
