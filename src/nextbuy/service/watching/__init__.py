"""What was served beside what was bought; and when a new bundle may take over."""
