"""From files, tables and named sources to a checked log, a catalog and histories. No torch here."""
