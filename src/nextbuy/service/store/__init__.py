"""Live purchases on disk: SQLite by default, PostgreSQL by URL."""
